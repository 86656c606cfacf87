"""Doubles at the network edge: models whose answers a test decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from threading import Event

from smartsql.gateway import Allowance, Attempt, Attempts, Price, Request


class ScriptedBackend:
    """A priced model that answers at once with `answer(input)`; counts what it is asked."""

    def __init__(
        self,
        name: str,
        answer: Callable[[str], str | Attempt],
        usd_per_call: float = 0.001,
        *,
        confidence: Callable[[str], float] | None = None,
        claims: bool = True,
    ) -> None:
        self.name = name
        self.answer = answer
        self.usd_per_call = usd_per_call
        self.confidence = confidence
        self.claims = claims
        self.price = Price(usd_per_call * 1e6, 0.0, "scripted")
        self.asked: Counter[str] = Counter()
        self.closed = False

    def identity(self, labels: tuple[str, ...]) -> str:
        return f"scripted:{self.name}"

    def expected_cost_usd(self, request: Request) -> float:
        return self.usd_per_call

    def start(
        self,
        requests: Sequence[Request],
        labels: tuple[str, ...],
        out: Attempts,
        cancelled: Event,
        allowance: Allowance | None = None,
    ) -> None:
        for request in requests:
            out.put([self._attempt(request, allowance)])

    def _attempt(self, request: Request, allowance: Allowance | None) -> Attempt:
        if allowance and not allowance.reserve(self.usd_per_call):
            return Attempt(request.index, True, "budget")
        self.asked[request.prompt] += 1
        said = self.answer(request.input)
        if isinstance(said, str):
            confidence = self.confidence(request.input) if self.confidence else None
            said = Attempt(
                request.index, True, "ok", said, confidence, 1, 1, self.usd_per_call, 0.01
            )
        else:
            said = Attempt(request.index, said.final, said.status, said.text, error=said.error)
        if allowance:
            allowance.settle(self.usd_per_call, said.cost_usd)
        return said

    def close(self) -> None:
        self.closed = True
