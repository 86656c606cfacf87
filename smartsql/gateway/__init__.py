"""The gateway: everything that answers a prompt.

A backend answers requests for one model. It returns at once from `start` and puts lists of
attempts on a queue as they end, so that many backends feed one reader, answers are stored in
groups as they arrive, and a slow model does not hold up a fast one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from smartsql.gateway.classifier import Classifier

SHOWN = 60
"""Characters of an answer that are shown where it is of no use."""
DELIVERED = frozenset({"ok", "empty", "cut", "refused", "unusable"})
"""Statuses of attempts that the model finished and may bill."""


@dataclass(frozen=True, slots=True)
class Form:
    """The shape of an answer, for models that can be held to one.

    Attributes:
        name: what an endpoint may call it.
        schema: JSON schema with an object at its root, as JSON.
        is_open: the answer is the object itself; else one word, which stands under the key
            `answers.schemas.ANSWER` where a model is held to the schema.
        bytes: of the schema, which endpoints count as part of the prompt.
    """

    name: str
    schema: str
    is_open: bool
    bytes: int

    @staticmethod
    def of(name: str, schema: Mapping[str, Any], *, is_open: bool) -> Form:
        """The form of a schema."""
        text = json.dumps(schema, ensure_ascii=False)
        return Form(name, text, is_open, len(text.encode("utf-8", "surrogatepass")))


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt for one model.

    Attributes:
        index: the caller's number for it; attempts carry it back.
        input: the cell's own text (for callables and learned models).
        prompt: the rendered prompt (for language models).
        form: the shape the answer must have, None for any.
    """

    index: int
    input: str
    prompt: str
    form: Form | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one request, paid or not.

    Attributes:
        final: no further attempt follows for this request.
        status: "ok", or "empty", "cut" (length limit), "refused", "unusable" (not of the type that
            the call asks for; found by its reader): delivered without an answer;
            "rejected" (4xx), "rate_limited", "server_error", "connection", "timeout",
            "malformed" (not an API answer), "budget", "cancelled".
        text: the model's text when status is "ok" or "unusable".
        confidence: in [0, 1], where the model gives one.
        cost_usd: by its usage; for attempts without usage the most it may have cost if it may
            have been billed ("timeout", "connection" after sending), else 0.
        seconds: wall time (network models) or the share of computing time (local models).
        served_by: model id that the server returned.
        error: what went wrong, without the prompt and without secrets; how an answer began that
            was cut off or refused.
        retryable: asking again later may help.
        scores: probability of each label of the task, where the model gives them; sum 1.
        figures: what an open answer says beside its text (`features.answer_figures`), a byte each;
            no model gives them, they are found when the answer arrives.
    """

    index: int
    final: bool
    status: str
    text: str | None = None
    confidence: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0
    served_by: str | None = None
    error: str | None = None
    retryable: bool = False
    scores: Mapping[str, float] | None = None
    figures: bytes | None = None


_HALVES = re.compile("[\ud800-\udfff]")


def whole(text: str) -> str:
    """A text in which halves of characters, which no store and no column can hold, are marks."""
    return text if text.isascii() else _HALVES.sub("\N{REPLACEMENT CHARACTER}", text)


def beginning(written: str | None) -> str | None:
    """How an answer began that is none, as a phrase; None where nothing was written."""
    text = " ".join((written or "").split())
    if not text:
        return None
    return f"it began {text[:SHOWN]!r}" + ("..." if len(text) > SHOWN else "")


Attempts = SimpleQueue[list[Attempt]]


class Allowance(Protocol):
    """Money that may still be spent; thread-safe."""

    def reserve(self, usd: float) -> bool:
        """Set aside the worst case of a call; False when the budget does not cover it."""
        ...

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        """Replace a reservation by what the call cost."""
        ...


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens, and where the figures come from."""

    input_usd_per_mtok: float
    output_usd_per_mtok: float
    source: str

    @property
    def is_free(self) -> bool:
        """Whether calls cost no money."""
        return self.input_usd_per_mtok == 0 and self.output_usd_per_mtok == 0

    def __str__(self) -> str:
        if self.is_free:
            return f"free ({self.source})"
        return (
            f"${self.input_usd_per_mtok:g} in, ${self.output_usd_per_mtok:g} out per million "
            f"tokens ({self.source})"
        )

    def cost_usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Cost of a call with these token counts."""
        return (
            prompt_tokens * self.input_usd_per_mtok + completion_tokens * self.output_usd_per_mtok
        ) / 1e6


class Backend(Protocol):
    """One model, ready to be asked."""

    @property
    def name(self) -> str:
        """The model's name in the configuration."""
        ...

    @property
    def price(self) -> Price:
        """What tokens cost; zero for local models."""
        ...

    @property
    def claims(self) -> bool:
        """Whether a call is worth a claim, so that nobody else makes the same call meanwhile."""
        ...

    def identity(self, labels: tuple[str, ...]) -> str:
        """Everything but the prompt that may change the answer: kind, endpoint, parameters.

        Goes into the key under which answers are stored. `labels` are those of the task, empty
        for an open answer; a backend that does not use them leaves them out.
        """
        ...

    def expected_cost_usd(self, request: Request) -> float:
        """Estimate of one call's cost before it is made."""
        ...

    def start(
        self,
        requests: Sequence[Request],
        labels: tuple[str, ...],
        out: Attempts,
        cancelled: Event,
        allowance: Allowance | None = None,
    ) -> None:
        """Begin to answer and return; every request ends in exactly one final attempt.

        A list on the queue holds attempts of one `start`, at least one.
        """
        ...

    def close(self) -> None:
        """Release connections and threads."""
        ...


class Hint(NamedTuple):
    """A cheap model's answer to a text, for a model that learns from it.

    Attributes:
        confidence: NaN where unknown.
    """

    input: str
    answer: str
    confidence: float


class LearningBackend(Backend, Protocol):
    """A local model that learns from the reference's answers."""

    def fork(self, start: Classifier | None = None) -> LearningBackend:
        """A model of the same configuration, for one statement alone; it knows `start` only."""
        ...

    def fit(
        self, inputs: Sequence[str], answers: Sequence[str], hints: Sequence[Hint] = ()
    ) -> None:
        """Train on normalised reference answers; deterministic in its arguments and the start."""
        ...

    def learned(self) -> Classifier | None:
        """What it knows by now, for the next statement; None if nothing."""
        ...


PythonFunction = Callable[[list[str]], Sequence[object]]
"""A callable model: texts in, for each an answer, (answer, confidence) or None."""
