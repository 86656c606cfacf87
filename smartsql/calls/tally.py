"""What one model did in one statement, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from smartsql.gateway import DELIVERED, Attempt


@dataclass(slots=True)
class Tally:
    """Counts and costs of one model's attempts; the fields are those of `report.ModelReport`."""

    calls: int = 0
    cached: int = 0
    failed: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    failed_cost_usd: float = 0.0
    seconds: float = 0.0
    last_error: str | None = None
    served_by: set[str] = field(default_factory=set)

    def add(self, attempts: Sequence[Attempt]) -> None:
        """Count attempts."""
        for a in attempts:
            if a.status != "ok":
                self.failed_cost_usd += a.cost_usd
            if a.final and a.status in DELIVERED:
                self.calls += 1
            else:
                self.retries += not a.final
                self.last_error = a.error or self.last_error
            self.cost_usd += a.cost_usd
            self.seconds += a.seconds
        self.prompt_tokens += sum([a.prompt_tokens for a in attempts])
        self.completion_tokens += sum([a.completion_tokens for a in attempts])
        self.served_by.update({a.served_by for a in attempts if a.served_by})
