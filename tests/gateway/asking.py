"""Helpers for tests of network models: a quick retry policy, and asking until all is final."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from threading import Event, Lock
from typing import Any

from smartsql.gateway import Allowance, Attempt, Attempts, Price, Request
from smartsql.gateway.limits import Slots
from smartsql.gateway.openai_api import OpenAIBackend
from smartsql.gateway.retry import RetryPolicy

QUICK = RetryPolicy(
    base_s=0.01,
    longest_s=0.05,
    patience_s=1.0,
    connect_patience_s=0.6,
    limit_patience_s=1.0,
    longest_probe_s=0.1,
)
PRICE = Price(1.0, 2.0, "test")


def backend_for(base_url: str, name: str = "m", **changes: Any) -> OpenAIBackend:
    settings: dict[str, Any] = {
        "price": PRICE,
        "slots": Slots(16),
        "retry": QUICK,
        "timeout_s": 5.0,
        "parameters": {"max_completion_tokens": 10},
    }
    return OpenAIBackend(name, base_url=base_url, **(settings | changes))


def requests_for(prompts: Sequence[str]) -> list[Request]:
    return [Request(i, prompt, prompt) for i, prompt in enumerate(prompts)]


def collect(out: Attempts, n: int, timeout_s: float = 20.0) -> dict[int, list[Attempt]]:
    """All attempts by request, once `n` requests are final; checks that each ends exactly once."""
    attempts: dict[int, list[Attempt]] = defaultdict(list)
    deadline = time.monotonic() + timeout_s
    open_requests = n
    while open_requests:
        for attempt in out.get(timeout=max(0.01, deadline - time.monotonic())):
            attempts[attempt.index].append(attempt)
            open_requests -= attempt.final
    try:
        late = out.get(timeout=0.02)
    except Empty:
        late = []
    assert not late, "attempts after the last final one"
    for tried in attempts.values():
        assert [a.final for a in tried] == [False] * (len(tried) - 1) + [True]
    assert sorted(attempts) == list(range(n))
    return dict(attempts)


def ask(
    backend: OpenAIBackend,
    prompts: Sequence[str],
    labels: tuple[str, ...] = (),
    allowance: Allowance | None = None,
    timeout_s: float = 20.0,
) -> dict[int, list[Attempt]]:
    out: Attempts = SimpleQueue()
    backend.start(requests_for(prompts), labels, out, Event(), allowance)
    return collect(out, len(prompts), timeout_s)


class Wallet:
    """An allowance that remembers."""

    def __init__(self, budget_usd: float) -> None:
        self.budget_usd = budget_usd
        self.reserved_usd = 0.0
        self.spent_usd = 0.0
        self.most_committed_usd = 0.0
        self._lock = Lock()

    def reserve(self, usd: float) -> bool:
        with self._lock:
            if self.spent_usd + self.reserved_usd + usd > self.budget_usd + 1e-12:
                return False
            self.reserved_usd += usd
            committed = self.spent_usd + self.reserved_usd
            self.most_committed_usd = max(self.most_committed_usd, committed)
            return True

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        with self._lock:
            self.reserved_usd -= reserved_usd
            self.spent_usd += spent_usd
