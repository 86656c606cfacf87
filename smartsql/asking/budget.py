"""Money that a statement may still spend."""

from __future__ import annotations

from threading import Event, Lock


class Budget:
    """A cap with reservations: the worst case of a call is set aside before the call is made.

    So no call exceeds the cap, however many are in flight. All calls of a statement share one.
    Thread-safe.

    Args:
        limit_usd: the cap; None for no cap.

    Attributes:
        refused_usd: the worst case of the last call that was refused; None if none was.
    """

    def __init__(self, limit_usd: float | None) -> None:
        self.limit_usd = limit_usd
        self.spent_usd = 0.0
        self.refused_usd: float | None = None
        self._reserved_usd = 0.0
        self._lock = Lock()

    def reserve(self, usd: float) -> bool:
        """Set aside the worst case of a call; False when the cap does not cover it."""
        with self._lock:
            committed = self.spent_usd + self._reserved_usd
            if self.limit_usd is not None and usd > 0 and committed + usd > self.limit_usd:
                self.refused_usd = usd
                return False
            self._reserved_usd += usd
            return True

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        """Replace a reservation by what the call cost."""
        with self._lock:
            self._reserved_usd -= reserved_usd
            self.spent_usd += spent_usd


class Gate:
    """The way to a budget for one smart call; once halted, nothing more begins."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._halted = Event()

    def reserve(self, usd: float) -> bool:
        """Set aside the worst case of a call; False when nothing more may be asked."""
        return not self._halted.is_set() and self.budget.reserve(usd)

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        """Replace a reservation by what the call cost."""
        self.budget.settle(reserved_usd, spent_usd)

    def halt(self) -> None:
        """Let no further call begin; calls in flight end."""
        self._halted.set()
