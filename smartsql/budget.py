"""Money that a statement may still spend."""

from __future__ import annotations

from threading import Lock


class Budget:
    """A cap with reservations: the worst case of a call is set aside before the call is made.

    So the cap is exceeded by no call, however many are in flight. `halt` closes the gate: calls
    in flight end, no further one begins. Thread-safe.

    Args:
        limit_usd: the cap; None for no cap.
    """

    def __init__(self, limit_usd: float | None) -> None:
        self.limit_usd = limit_usd
        self.spent_usd = 0.0
        self.exhausted = False
        self._reserved_usd = 0.0
        self._halted = False
        self._lock = Lock()

    def reserve(self, usd: float) -> bool:
        """Set aside the worst case of a call; False when nothing more may be asked."""
        with self._lock:
            if self._halted:
                return False
            committed = self.spent_usd + self._reserved_usd
            if self.limit_usd is not None and usd > 0 and committed + usd > self.limit_usd:
                self.exhausted = True
                return False
            self._reserved_usd += usd
            return True

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        """Replace a reservation by what the call cost."""
        with self._lock:
            self._reserved_usd -= reserved_usd
            self.spent_usd += spent_usd

    def halt(self) -> None:
        """Let no further call begin."""
        with self._lock:
            self._halted = True
