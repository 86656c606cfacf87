"""How much may happen at once: calls in flight, requests and tokens a minute, money set aside.

Everything here lives on the one event loop of the process, so plain attributes suffice; only the
`Allowance` behind a `Purse` is shared with other threads.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from smartsql.errors import ParameterError
from smartsql.gateway import Allowance

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter


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

    One is shared by all models of a configuration; each model has another one of its own that
    shrinks and grows with what its endpoint accepts.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ParameterError(f"max_in_flight is {limit!r}; it must be at least 1.")
        self.limit = limit
        self.taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
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

    def _fill(self) -> None:
        while self._waiting and self.taken < self.limit:
            place = self._waiting.popleft()
            if not place.done():
                self.taken += 1
                place.set_result(None)

    def purse(self, allowance: Allowance | None) -> Purse:
        """The purse for this allowance; the same for all models that spend from it."""
        if allowance is None:
            return Purse(None)
        # an id is unique while its object exists, and the purse keeps the allowance alive
        return self._purses.setdefault(id(allowance), Purse(allowance))


class Congestion:
    """Fits a model's places to what its endpoint accepts.

    After each window of as many outcomes as there are places, the places shrink by the share of
    calls that were refused for rate limits: of 256 calls to an endpoint that serves 40 at once,
    84 % come back refused. They grow a little after several windows without a cut. A small share
    is tolerated: a refusal costs nothing, and where refusals come at random, fewer places would
    not make them rarer.
    """

    CALM_WINDOWS = 3
    SMALLEST_WINDOW = 25
    TOLERATED_SHARE = 0.08

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._most = slots.limit
        self._cut_at = -math.inf
        self._outcomes = 0
        self._refused = 0
        self._calm = 0

    def record(self, *, refused: bool, sent_at: float, now: float) -> None:
        """A call ended; times in seconds on one clock."""
        if sent_at < self._cut_at:
            return  # sent under a limit that was given up meanwhile: it says nothing new
        self._outcomes += 1
        self._refused += refused
        limit = self._slots.limit
        if self._outcomes < max(limit, self.SMALLEST_WINDOW):
            return
        share, self._outcomes, self._refused = self._refused / self._outcomes, 0, 0
        if share > self.TOLERATED_SHARE:
            self._calm, self._cut_at = 0, now
            self._slots.resize(max(1, min(limit - 1, round(limit * (1.0 - share)))))
        elif limit < self._most:
            self._calm += 1
            if self._calm >= self.CALM_WINDOWS:
                self._calm = 0
                self._slots.resize(min(self._most, limit + max(1, limit // 20)))


class Pace:
    """Requests and tokens a minute, never more in any 60 seconds.

    A leaky bucket lets its capacity through at once and then its rate, so capacity and rate
    together are kept to the limit: a second's worth of requests, six seconds' worth of tokens.
    """

    def __init__(
        self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
    ) -> None:
        for name, value in (
            ("requests_per_minute", requests_per_minute),
            ("tokens_per_minute", tokens_per_minute),
        ):
            if value is not None and not value >= 1:
                raise ParameterError(f"{name} is {value!r}; it must be at least 1.")
        self._limits = (requests_per_minute, tokens_per_minute)
        self._requests: AsyncLimiter | None = None
        self._tokens: AsyncLimiter | None = None
        self._owed = 0.0

    @property
    def is_limited(self) -> bool:
        """Whether there is anything to wait for."""
        return self._limits != (None, None)

    async def admit(self, tokens: float) -> None:
        """Wait until a request of about this many tokens may be sent."""
        rpm, tpm = self._limits
        if rpm is not None:
            self._requests = self._requests or _bucket(rpm, max(1.0, rpm // 60))
            await self._requests.acquire()
        if tpm is not None:
            self._tokens = self._tokens or _bucket(tpm, max(1.0, tpm / 10))
            owed = max(0.0, tokens + self._owed)
            self._owed += tokens - owed
            while owed > 0:  # larger requests than the bucket take their time in parts
                part = min(owed, self._tokens.max_rate)
                await self._tokens.acquire(part)
                owed -= part

    def correct(self, estimated: float, used: float) -> None:
        """Charge the difference to the next request once the true count is known."""
        if self._limits[1] is not None:
            self._owed += used - estimated


def _bucket(per_minute: float, capacity: float) -> AsyncLimiter:
    from aiolimiter import AsyncLimiter

    rate = max(per_minute - capacity, per_minute / 60.0)
    return AsyncLimiter(capacity, 60.0 * capacity / rate)


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
