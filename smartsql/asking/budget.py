"""Money that may still be spent: by a statement, by a session, on a day."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Lock
from typing import Protocol

from smartsql.errors import BudgetError, LedgerError
from smartsql.ledger import Ledger
from smartsql.ledger.owners import new_owner
from smartsql.ledger.spending import utc_day

CHUNKS = 200
"""A process takes a daily budget in parts of at least one in so many, so that not every call waits
for the ledger, and little is held back from other processes."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call may not be made.

    Attributes:
        cap: "statement", "session" or "day".
        spent_usd: what counts against the cap so far.
        held_usd: what others have set aside besides (of a day).
        wanted_usd: worst case of the call.
        day: of a daily cap, in UTC.
    """

    cap: str
    limit_usd: float
    spent_usd: float
    wanted_usd: float
    held_usd: float = 0.0
    day: str = ""

    def error(self, missing: int) -> BudgetError:
        """The error of a call that was left with so many calls to make."""
        return BudgetError(
            self.limit_usd,
            self.spent_usd,
            missing,
            self.wanted_usd,
            cap=self.cap,
            held_usd=self.held_usd,
            day=self.day,
        )


class Cap(Protocol):
    """One limit; thread-safe."""

    def reserve(self, usd: float) -> Refusal | None:
        """Set aside the worst case of a call; why not, where the cap does not cover it."""
        ...

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        """Replace a reservation by what the call cost."""
        ...

    def lend(self, name: str, usd: float) -> None:
        """Leave a reservation to a batch, which may outlive the statement and the process."""
        ...

    def come_back(self, name: str, spent_usd: float) -> None:
        """End what a batch was lent, if anything: it cost so much, which the ledger counted."""
        ...


class Budget:
    """A cap with reservations: the worst case of a call is set aside before the call is made.

    So no call exceeds the cap, however many are in flight. All calls of a statement, or of a
    session, share one.

    Args:
        limit_usd: the cap; None for no cap.
        cap: what it is a cap of.
    """

    def __init__(self, limit_usd: float | None, cap: str = "statement") -> None:
        self.limit_usd = limit_usd
        self.cap = cap
        self.spent_usd = 0.0
        self._reserved_usd = 0.0
        self._lent: dict[str, float] = {}
        self._lock = Lock()

    def reserve(self, usd: float) -> Refusal | None:
        """Set aside the worst case of a call; why not, where the cap does not cover it."""
        with self._lock:
            committed = self.spent_usd + self._reserved_usd
            if self.limit_usd is not None and usd > 0 and committed + usd > self.limit_usd:
                return Refusal(self.cap, self.limit_usd, self.spent_usd, usd)
            self._reserved_usd += usd
            return None

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        """Replace a reservation by what the call cost."""
        with self._lock:
            self._reserved_usd -= reserved_usd
            self.spent_usd += spent_usd

    def lend(self, name: str, usd: float) -> None:
        """Leave a reservation to a batch; it is held until the batch comes back."""
        self._lent[name] = usd

    def come_back(self, name: str, spent_usd: float) -> None:
        """End what a batch was lent, if anything: it cost so much."""
        self.settle(self._lent.pop(name, 0.0), spent_usd)


class DailyBudget:
    """A cap on what all processes that share a ledger spend on one day (UTC).

    Money is taken from the day in the ledger, in one transaction, before a call that needs it is
    made; what was taken and not spent is given back when nothing is in flight. What a process
    that was killed had taken stays taken until the day ends: its calls may have been billed.

    Args:
        limit_usd: the cap.

    Attributes:
        lease: under which the ledger knows what this process has taken.
    """

    def __init__(self, ledger: Ledger, limit_usd: float) -> None:
        self.limit_usd = limit_usd
        self.lease = new_owner()
        self._ledger = ledger
        self._day = ""
        self._taken_usd = 0.0
        self._in_flight_usd = 0.0
        self._lock = Lock()

    def reserve(self, usd: float) -> Refusal | None:
        """Set aside the worst case of a call; why not, where the day does not cover it."""
        if usd <= 0:
            return None
        with self._lock:
            if self._day != (today := utc_day()):
                self._day, self._taken_usd = today, 0.0
            missing = self._in_flight_usd + usd - self._taken_usd
            if missing > 0 and (refusal := self._take(missing, usd)):
                return refusal
            self._in_flight_usd += usd
            return None

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        """Replace a reservation by what the call cost, which the ledger counts from now on."""
        with self._lock:
            self._in_flight_usd -= reserved_usd
            self._taken_usd = max(0.0, self._taken_usd - spent_usd)
            if self._in_flight_usd < 1e-12:
                self._in_flight_usd = 0.0

    def lend(self, name: str, usd: float) -> None:
        """Leave a reservation to a batch: the ledger has moved it to the batch's own name."""
        self.settle(usd, usd)

    def come_back(self, name: str, spent_usd: float) -> None:
        """Nothing is left to do: the ledger has ended what the batch held."""

    def give_back(self) -> None:
        """Leave what is not in flight to others."""
        with self._lock:
            spare = self._taken_usd - self._in_flight_usd
            if spare > 0:
                # a ledger that cannot be written has said so already; the next call tries again
                with suppress(LedgerError):
                    self._ledger.give_back(self._day, self.lease, spare)
                    self._taken_usd -= spare

    def _take(self, missing: float, wanted: float) -> Refusal | None:
        """Take money from the day; holds the lock."""
        refusal = None
        for usd in (max(missing, self.limit_usd / CHUNKS), missing):
            found = self._ledger.set_aside(self._day, self.lease, usd, self.limit_usd)
            if found is None:
                self._taken_usd += usd
                return None
            spent, held = found
            refusal = Refusal("day", self.limit_usd, spent, wanted, held, self._day)
        return refusal


class Gate:
    """The way to the money for one smart call; once halted, nothing more begins.

    Attributes:
        refusal: why the last call that was refused may not be made; None if none was.
    """

    def __init__(self, caps: Sequence[Cap]) -> None:
        self.caps = tuple(caps)
        self.refusal: Refusal | None = None
        self._halted = Event()

    def reserve(self, usd: float) -> bool:
        """Set aside the worst case of a call with every cap; False when it may not be made."""
        if self._halted.is_set():
            return False
        for number, cap in enumerate(self.caps):
            refusal = cap.reserve(usd)
            if refusal is not None:
                for earlier in self.caps[:number]:
                    earlier.settle(usd, 0.0)
                self.refusal = refusal
                return False
        return True

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        """Replace a reservation by what the call cost."""
        for cap in self.caps:
            cap.settle(reserved_usd, spent_usd)

    def lend(self, name: str, usd: float) -> None:
        """Leave a reservation to a batch, which may outlive the statement and the process."""
        for cap in self.caps:
            cap.lend(name, usd)

    def come_back(self, name: str, spent_usd: float) -> None:
        """End what a batch was lent: it cost so much, which the ledger has counted."""
        for cap in self.caps:
            cap.come_back(name, spent_usd)

    @property
    def is_halted(self) -> bool:
        """Whether nothing more may begin."""
        return self._halted.is_set()

    def halt(self) -> None:
        """Let no further call begin; calls in flight end."""
        self._halted.set()
