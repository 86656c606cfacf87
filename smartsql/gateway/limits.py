"""How much may happen at once: calls in flight, and money set aside for them.

Everything here lives on the one event loop of the process, so plain attributes suffice; only the
`Allowance` behind a `Purse` is shared with other threads.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable

from smartsql.errors import ParameterError
from smartsql.gateway import Allowance


async def _in_line(waiting: deque[asyncio.Future[None]], pass_on: Callable[[], None]) -> None:
    """Wait at the end of a line; a turn that comes as one is cancelled is passed on."""
    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting.append(turn)
    try:
        await turn
    except asyncio.CancelledError:
        if turn.done() and not turn.cancelled():
            pass_on()
        raise


class Slots:
    """Places for calls in flight, given out in the order of asking.

    One is shared by all models of a configuration, each of which takes from its own `share`; each
    model has another one of its own that shrinks and grows with what its endpoint accepts.
    """

    KEPT = 8
    """One in so many places is kept for models that have none."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ParameterError(f"max_in_flight is {limit!r}; it must be at least 1.")
        self.limit = limit
        self.taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._shares: list[weakref.ref[Share]] = []
        self._purses: weakref.WeakValueDictionary[int, Purse] = weakref.WeakValueDictionary()

    async def take(self) -> None:
        """Wait for a place."""
        if self.taken < self.limit and not self._waiting:
            self.taken += 1
            return
        await _in_line(self._waiting, self.give)

    def give(self) -> None:
        """Return a place."""
        self.taken -= 1
        self._fill()

    async def __aenter__(self) -> None:
        await self.take()

    async def __aexit__(self, *_: object) -> None:
        self.give()

    def resize(self, limit: int) -> None:
        """Change the number of places; those taken stay taken."""
        self.limit = limit
        self._fill()

    def share(self) -> Share:
        """A part for one more model."""
        made = Share(self)
        self._shares = [known for known in self._shares if known() is not None]
        self._shares.append(weakref.ref(made))
        return made

    def has_room_for(self, one: Share) -> bool:
        """Whether a model may have one more place: some are kept for those that have few."""
        free = self.limit - self.taken
        others = [share for share in self._parts() if share is not one]
        if not others or free < 1:
            return free > 0
        kept = max(1, self.limit // (self.KEPT * len(others))) if self.limit > len(others) else 0
        return free > sum(max(0, kept - share.taken) for share in others)

    def lend(self, to: Share) -> None:
        """Count a place that a model takes."""
        self.taken += 1
        to.taken += 1

    def _parts(self) -> list[Share]:
        found = [known() for known in self._shares]
        return [share for share in found if share is not None]

    def _fill(self) -> None:
        while self._waiting and self.taken < self.limit:
            place = self._waiting.popleft()
            if not place.done():
                self.taken += 1
                place.set_result(None)
        while self.taken < self.limit:
            wanting = [s for s in self._parts() if _has_waiting(s) and self.has_room_for(s)]
            if not wanting:
                return
            least = min(wanting, key=lambda share: share.taken)
            self.lend(least)
            least.waiting.popleft().set_result(None)

    def purse(self, allowance: Allowance | None) -> Purse:
        """The purse for this allowance; the same for all models that spend from it."""
        if allowance is None:
            return Purse(None)
        # an id is unique while its object exists, and the purse keeps the allowance alive
        return self._purses.setdefault(id(allowance), Purse(allowance))


def _has_waiting(share: Share) -> bool:
    while share.waiting and share.waiting[0].done():
        share.waiting.popleft()
    return bool(share.waiting)


class Share:
    """One model's part of slots that several models share; calls of a model go in order.

    Whoever has the fewest places gets the next one, and a few are kept for models that have
    none, so that an endpoint that hangs cannot hold all places while others wait.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.taken = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        if not self.waiting and self._slots.has_room_for(self):
            self._slots.lend(self)
            return
        await _in_line(self.waiting, self._give)

    async def __aexit__(self, *_: object) -> None:
        self._give()

    def _give(self) -> None:
        self.taken -= 1
        self._slots.give()


class Purse:
    """Reservations against an allowance, which wait for one another.

    The worst case of a call is many times its usual cost. Near the end of the money a reservation
    that fails is tried again when a call in flight has been settled for less; it is final only
    when nothing is outstanding any more.
    """

    def __init__(self, allowance: Allowance | None) -> None:
        self._allowance = allowance
        self.outstanding = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def reserve(self, usd: float) -> bool:
        """Set aside the worst case of a call; False when the money is used up."""
        if self._allowance is None:
            return True
        while not self._allowance.reserve(usd):
            if self.outstanding == 0:
                self._wake_next()
                return False
            await _in_line(self._waiting, self._wake_next)
        self.outstanding += 1
        self._wake_next()
        return True

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        """Replace a reservation by what the call cost."""
        if self._allowance is None:
            return
        self._allowance.settle(reserved_usd, spent_usd)
        self.outstanding -= 1
        self._wake_next()

    def _wake_next(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
