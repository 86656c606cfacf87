"""Limits a minute as the server sees them: every moment at which a client passed one is kept."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from functools import partial


@dataclass(frozen=True, slots=True)
class Violation:
    """A moment at which the last minute held more than the limit."""

    at: float
    model: str
    what: str
    counted: float
    limit: float


class Sliding:
    """The sum of what came within the last minute."""

    def __init__(self, minute_s: float) -> None:
        self.minute_s = minute_s
        self.total = 0.0
        self.most = 0.0
        self._entries: deque[tuple[float, float]] = deque()

    def add(self, at: float, amount: float) -> float:
        self._entries.append((at, amount))
        self.total += amount
        self.until(at)
        self.most = max(self.most, self.total)
        return self.total

    def until(self, at: float) -> float:
        while self._entries and self._entries[0][0] <= at - self.minute_s:
            self.total -= self._entries.popleft()[1]
        return self.total

    def wait_s(self, at: float) -> float:
        """Until the oldest entry is forgotten."""
        return max(0.001, self._entries[0][0] + self.minute_s - at) if self._entries else 0.001


@dataclass(slots=True)
class Minutes:
    """Requests and tokens of the last minute, for each model; a minute slides.

    Requests count as they arrive, refused ones too; tokens count when they are billed.

    Args:
        enforced: what passes a limit is refused with 429; else it is only written down.
        minute_s: how long a minute of this server is, so that tests take seconds.
        retry_after: a refusal says when to come back.
    """

    requests: int | None = None
    tokens: int | None = None
    enforced: bool = False
    minute_s: float = 60.0
    retry_after: bool = True
    violations: list[Violation] = field(default_factory=list)
    arrived: dict[str, Sliding] = field(default_factory=dict)
    billed: dict[str, Sliding] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.violations = []
        self.arrived = defaultdict(partial(Sliding, self.minute_s))
        self.billed = defaultdict(partial(Sliding, self.minute_s))

    def arrive(self, model: str, at: float) -> float | None:
        """A request arrived; seconds to wait where it is refused."""
        passed = self._note(self.arrived[model].add(at, 1.0), self.requests, at, model, "requests")
        used_up = self.tokens is not None and self.billed[model].until(at) >= self.tokens
        if not self.enforced or not (passed or used_up):
            return None
        return (self.arrived if passed else self.billed)[model].wait_s(at)

    def bill(self, model: str, at: float, tokens: int) -> None:
        """An answer was made."""
        self._note(self.billed[model].add(at, float(tokens)), self.tokens, at, model, "tokens")

    def _note(self, counted: float, limit: int | None, at: float, model: str, what: str) -> bool:
        if limit is None or counted <= limit:
            return False
        self.violations.append(Violation(at, model, what, counted, limit))
        return True
