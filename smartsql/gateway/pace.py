"""Requests and tokens a minute, kept exactly: in no 60 seconds more than the limit.

The endpoint counts a call at some moment between its being sent and its answer, and only the
endpoint knows when. So a call counts here from before it is sent until a minute after it ended, and
for as many tokens as it may use until it is known how many it did. Whatever minute the endpoint
looks at: when the last of the calls in it was sent, all others of them were counted here.

Within the minute calls are spread out, as some endpoints count by the second: a second's worth of
requests and six seconds' worth of tokens may go at once.

What is counted is kept by a `Counter`: one of this process alone, or one in the ledger for all
processes that share it, from which permits are taken for a quarter of a second at a time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from smartsql.errors import ParameterError

MINUTE_S = 60.0
"""What endpoints mean by a minute."""
MARGIN = 0.002
"""Part of a minute that is kept for clocks that run at different speeds."""
AT_ONCE = (1 / 60, 1 / 10)
"""Parts of the limits of requests and tokens that may go at once."""
BLOCK = 1 / 240
"""Part of a limit that is taken from a shared counter at a time."""
RESOLUTION = 1 / 240
"""Part of a minute within which calls that ended are counted as one."""
LONGEST_WAIT_S = 0.5
"""Until a counter is asked again: other processes may have returned permits."""
SHORTEST_WAIT_S = 0.005
IDLE_S = 0.5
"""After so long without a call, permits are returned to a shared counter."""


class Permits(NamedTuple):
    """A number of requests and of tokens."""

    requests: float = 0.0
    tokens: float = 0.0

    def plus(self, other: Permits, times: float = 1.0) -> Permits:
        """Both together; `times` of the other."""
        return Permits(self.requests + times * other.requests, self.tokens + times * other.tokens)

    def covers(self, other: Permits) -> bool:
        """Whether there are at least so many of both."""
        return self.requests >= other.requests and self.tokens >= other.tokens - 1e-9


NONE = Permits()


class Ended(NamedTuple):
    """Calls that have ended and count until a moment on the counter's clock."""

    until: float
    used: Permits


@dataclass(frozen=True, slots=True)
class Change:
    """What an owner of permits tells a counter, and asks of it.

    Attributes:
        returned: permits that will not be used.
        ended: calls that ended, for which permits were held until now.
        need, want: permits to be held from now on; at least `need` or none, at most `want`.
    """

    returned: Permits = NONE
    ended: Sequence[Ended] = ()
    need: Permits = NONE
    want: Permits = NONE


class Granted(NamedTuple):
    """What a counter says: permits, or when to ask again, in seconds."""

    permits: Permits
    wait_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one model at one endpoint, a minute; infinite where there is none."""

    requests: float
    tokens: float
    minute_s: float

    def clipped(self, tokens: float) -> Permits:
        """The permits of one call; the largest call takes a whole minute's tokens."""
        return Permits(1.0, min(tokens, self.tokens))

    def decide(self, counted: Permits, level: Permits, change: Change) -> Granted:
        """Permits that a minute and a bucket that hold so much have room for.

        Args:
            counted: what counts now: permits held and calls of the last minute.
            level: what went lately and has not drained from the bucket.
        """
        granted, wait_s = [], 0.0
        for i, limit in enumerate((self.requests, self.tokens)):
            need, want = change.need[i], max(change.want[i], change.need[i])
            if math.isinf(limit):
                granted.append(want)
                continue
            at_once = max(1.0, AT_ONCE[i] * limit, need)  # a large call waits for an empty bucket
            room = min(limit - counted[i], at_once - level[i])
            if room < need - 1e-9:
                drained_s = (level[i] + need - at_once) * self.minute_s / limit
                full = counted[i] + need > limit + 1e-9
                wait_s = max(wait_s, LONGEST_WAIT_S if full else drained_s, SHORTEST_WAIT_S)
            granted.append(max(need, min(want, room)))
        if wait_s > 0.0:
            return Granted(NONE, wait_s)
        return Granted(Permits(math.floor(granted[0] + 1e-9), granted[1]), 0.0)

    def drained(self, level: Permits, seconds: float) -> Permits:
        """The bucket's level so much later."""
        rates = [0.0 if math.isinf(n) else n / self.minute_s for n in (self.requests, self.tokens)]
        left = [max(0.0, n - rate * seconds) for n, rate in zip(level, rates, strict=True)]
        return Permits(*left)


class Counter(Protocol):
    """Where the permits of a model are counted."""

    @property
    def is_shared(self) -> bool:
        """Whether others take permits from it; if so, `exchange` may wait for them."""
        ...

    def now(self) -> float:
        """Seconds on its clock."""
        ...

    def exchange(self, limits: Limits, change: Change) -> Granted:
        """Count a change; permits are held from now on."""
        ...

    def close(self) -> None:
        """Release what is held; it may be used again."""
        ...


class OwnCounter:
    """The counter of a model that no other process asks."""

    is_shared = False

    def __init__(self) -> None:
        self._counted = NONE
        self._level = NONE
        self._at = -math.inf
        self._ended: deque[Ended] = deque()

    def now(self) -> float:
        """Seconds on a clock that is never set."""
        return time.monotonic()

    def exchange(self, limits: Limits, change: Change) -> Granted:
        """Count a change; permits are held from now on."""
        now = self.now()
        self._ended.extend(change.ended)
        while self._ended and self._ended[0].until <= now:
            self._counted = self._counted.plus(self._ended.popleft().used, -1.0)
        self._counted = self._counted.plus(change.returned, -1.0)
        drained = limits.drained(self._level, now - self._at).plus(change.returned, -1.0)
        self._level = Permits(max(0.0, drained.requests), max(0.0, drained.tokens))
        self._at = now
        granted = limits.decide(self._counted, self._level, change)
        self._counted = self._counted.plus(granted.permits)
        self._level = self._level.plus(granted.permits)
        if granted.wait_s and self._ended:
            soon_s = max(SHORTEST_WAIT_S, self._ended[0].until - now)
            return Granted(NONE, min(granted.wait_s, soon_s))
        return granted

    def close(self) -> None:
        """Nothing is held."""


class Pace:
    """Keeps a model to its limits. For use on the event loop only.

    Args:
        requests_per_minute, tokens_per_minute: the limits; None for none.
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
        self.is_limited = not (requests_per_minute is None and tokens_per_minute is None)
        self._limits = Limits(
            requests_per_minute or math.inf, tokens_per_minute or math.inf, MINUTE_S
        )
        self._counter: Counter = OwnCounter()
        self._block = NONE
        self._ended: list[Ended] = []
        self._waiting: deque[tuple[asyncio.Future[None], Permits]] = deque()
        self._server: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._last_call = -math.inf

    def count_with(self, counter: Counter) -> None:
        """Count elsewhere, from before the first call on."""
        self._counter = counter

    async def close(self) -> None:
        """Return what is held, when no call is under way; it may be used again."""
        if not (self.is_limited and self._counter.is_shared):
            return
        self._last_call = -math.inf
        self._changed.set()
        if self._server is not None:
            await self._server
        await asyncio.to_thread(self._counter.close)

    async def admit(self, tokens: float) -> Permits:
        """Wait until a call of at most so many tokens may be sent; what it holds until `end`.

        Raises:
            LedgerError: a shared counter cannot be read or written.
        """
        if not self.is_limited:
            return NONE
        need = self._limits.clipped(tokens)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, need))
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._block = self._block.plus(need)
            raise
        return need

    def end(self, held: Permits, tokens: float | None) -> None:
        """A call that held permits ended; None tokens where it was never sent."""
        if not self.is_limited:
            return
        now = self._counter.now()
        used = NONE if tokens is None else Permits(1.0, tokens)
        # an endpoint that used more than it may leaves a debt, which the next exchange pays
        self._block = self._block.plus(held).plus(used, -1.0)
        if used != NONE:
            self._count_ended(now, used)
        self._last_call = now
        self._changed.set()
        self._serve()

    def _count_ended(self, now: float, used: Permits) -> None:
        minute_s = self._limits.minute_s
        until = now + minute_s * (1.0 + MARGIN)
        last = self._ended[-1] if self._ended else None
        if last is not None and until - last.until < RESOLUTION * minute_s:
            self._ended.pop()
            used = used.plus(last.used)
        self._ended.append(Ended(until, used))

    # --- the one that talks to the counter ------------------------------------------------------

    def _serve(self) -> None:
        """Give out what is there; see to it that somebody asks for more."""
        self._hand_out()
        if self._waiting:
            self._changed.set()
        if self._server is None and (self._waiting or self._counter.is_shared):
            self._server = asyncio.get_running_loop().create_task(self._served())

    def _hand_out(self) -> None:
        while self._waiting:
            turn, need = self._waiting[0]
            if turn.done():
                self._waiting.popleft()
            elif self._block.covers(need):
                self._block = self._block.plus(need, -1.0)
                self._waiting.popleft()
                turn.set_result(None)
            else:
                return

    async def _served(self) -> None:
        try:
            while self._waiting or await self._idle():
                self._changed.clear()
                granted = await self._exchange()
                self._block = self._block.plus(granted.permits)
                self._hand_out()
                if self._waiting and granted.wait_s:
                    await self._until_changed(min(granted.wait_s, LONGEST_WAIT_S))
        except Exception as error:
            # whoever waits for the counter must learn that it cannot be used
            for turn, _ in self._waiting:
                if not turn.done():
                    turn.set_exception(error)
        finally:
            self._server = None

    async def _idle(self) -> bool:
        """Wait for calls or for the time to return permits; whether there is something to do."""
        while self._counter.is_shared and (self._ended or self._block != NONE):
            left_s = self._last_call + IDLE_S - self._counter.now()
            if self._waiting or left_s <= 0:
                return True
            self._changed.clear()
            await self._until_changed(min(left_s, IDLE_S))
        return bool(self._waiting)

    async def _until_changed(self, seconds: float) -> None:
        """Sleep; a call that ended may have left permits."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _exchange(self) -> Granted:
        """Return what is left, report what ended, take permits for those who wait."""
        need = want = NONE
        if self._waiting:
            need = self._waiting[0][1]
            want = Permits(*(n * self._calls_at_a_time(need) for n in need))
        ended, self._ended = self._ended, []
        change = Change(self._block, ended, need, want)
        self._block = NONE
        if not self._counter.is_shared:
            return self._counter.exchange(self._limits, change)
        return await asyncio.to_thread(self._counter.exchange, self._limits, change)

    def _calls_at_a_time(self, need: Permits) -> int:
        limits = self._limits
        most = [BLOCK * limits.requests, BLOCK * limits.tokens / max(need.tokens, 1.0)]
        return max(1, int(min(len(self._waiting), *most)))
