"""What calls to one model cost: expected before, at most before, and in fact afterwards."""

from __future__ import annotations

from smartsql.gateway import Price, Request
from smartsql.gateway.openai_wire import Failure, Reply

OVERHEAD_TOKENS = 64
"""Most tokens that roles and separators add to a prompt."""
ASSUMED_COMPLETION_TOKENS = 1024
"""Longest answer assumed where no parameter limits it."""
USUAL_OVERHEAD_TOKENS = 8
USUAL_COMPLETION_TOKENS = 16
USUAL_TOKENS_PER_BYTE = 0.25


BYTES_PER_TOKEN = 10
"""Of a schema, for each token of an answer of that form."""
HIDDEN_TOKENS = 20_000
"""Most tokens that an endpoint may add to a prompt: templates, instructions of its own."""
MOST_COMPLETION_TOKENS = 1_000_000
"""Of one answer, hidden thoughts included; no model writes more."""


class Meter:
    """Token counts and money of one model; learns from the usage that comes back.

    Args:
        longest_answer: limit on completion tokens among the parameters, None without one.
        system_bytes: length of the message that goes before each prompt.
    """

    def __init__(self, price: Price, longest_answer: int | None, system_bytes: int) -> None:
        self.price = price
        self._longest = longest_answer or ASSUMED_COMPLETION_TOKENS
        self._system_bytes = system_bytes
        self._calls = 0
        self._bytes = 0
        self._prompt_tokens = 0
        self._completion_tokens = 0

    @property
    def longest(self) -> int:
        """Most tokens of an answer, as far as is known."""
        return self._longest

    def n_bytes(self, request: Request) -> int:
        """Bytes of which an endpoint may count tokens."""
        form = request.form.bytes if request.form else 0
        return len(request.prompt.encode("utf-8", "surrogatepass")) + self._system_bytes + form

    def expected_tokens(self, request: Request) -> tuple[int, int]:
        """Prompt and completion tokens by the averages so far, or by usual ones."""
        n_bytes = self.n_bytes(request)
        if not self._calls:
            prompt = round(n_bytes * USUAL_TOKENS_PER_BYTE) + USUAL_OVERHEAD_TOKENS
            return prompt, min(self._longest, _usual_completion(request))
        prompt = round(n_bytes * self._prompt_tokens / max(1, self._bytes))
        return max(1, prompt), round(self._completion_tokens / self._calls)

    def worst_tokens(self, request: Request) -> tuple[int, int]:
        """A token for each byte, and the longest answer allowed.

        A byte-level tokenizer never makes more tokens than there are bytes. Of an endpoint that
        keeps to no limit the longest answer so far is expected again.
        """
        return self.n_bytes(request) + OVERHEAD_TOKENS, self._longest

    def expected_cost_usd(self, request: Request) -> float:
        """Estimate of a call's cost."""
        return self.price.cost_usd(*self.expected_tokens(request))

    def worst_cost_usd(self, request: Request) -> float:
        """What a call costs at most."""
        return self.price.cost_usd(*self.worst_tokens(request))

    def counted(self, request: Request, reply: Reply) -> tuple[int, int] | None:
        """Tokens as the endpoint counted them; None where it did not, or cannot be right.

        A prompt has at least a token and not more than bytes, its template aside; what is written
        has at least a token.
        """
        if reply.usage is None:
            return None
        prompt, completion = reply.usage
        most = self.n_bytes(request) + HIDDEN_TOKENS
        if not 1 <= prompt <= most or completion > MOST_COMPLETION_TOKENS:
            return None
        return None if completion == 0 and reply.written.strip() else reply.usage

    def tokens_of(self, request: Request, reply: Reply) -> tuple[int, int]:
        """Tokens as the endpoint counted them; where it did not, the most they can be."""
        counted = self.counted(request, reply)
        if counted is not None:
            return counted
        prompt, longest = self.worst_tokens(request)
        written = len(reply.written.encode("utf-8", "surrogatepass")) + OVERHEAD_TOKENS
        return prompt, min(longest, written)

    def cost_of(self, request: Request, outcome: Reply | Failure) -> float:
        """What a try cost; for failed ones the most it may have cost."""
        if isinstance(outcome, Reply):
            return self.price.cost_usd(*self.tokens_of(request, outcome))
        return self.worst_cost_usd(request) if outcome.may_be_billed else 0.0

    def tokens_used(self, request: Request, outcome: Reply | Failure) -> int:
        """Tokens of a try; for failed ones the most it may have used."""
        if isinstance(outcome, Reply):
            return sum(self.tokens_of(request, outcome))
        return sum(self.worst_tokens(request)) if outcome.may_be_billed else 0

    def learn(self, request: Request, reply: Reply) -> None:
        """Take a call's usage into the averages, and into what is the most a call can cost."""
        usage = self.counted(request, reply)
        if usage is None:
            return
        self._longest = max(self._longest, usage[1])
        self._calls += 1
        self._bytes += self.n_bytes(request)
        self._prompt_tokens += usage[0]
        self._completion_tokens += usage[1]


def _usual_completion(request: Request) -> int:
    """Tokens of an answer before any was seen."""
    if request.form is None or not request.form.is_open:
        return USUAL_COMPLETION_TOKENS
    return max(USUAL_COMPLETION_TOKENS, request.form.bytes // BYTES_PER_TOKEN)
