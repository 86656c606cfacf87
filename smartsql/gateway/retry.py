"""When to ask again, how long to wait, and when to give up on an endpoint.

Three rules work together. Each request is tried again with growing, random pauses. A budget of
retries, filled by requests, keeps a half-broken endpoint from doubling its own load again and
again. And when nothing at all succeeds any more, only single probes are sent until one succeeds or
patience ends; then whatever is left fails at once, with the reason.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from smartsql.errors import ParameterError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient to be; all times in seconds.

    Attributes:
        max_attempts: tries of one request that may fail; refusals for rate limits do not count.
        max_refusals: refusals of one request for rate limits. Many, as they cost nothing and the
            places for calls shrink meanwhile; but not endless, as one request may be too large.
        base_s, longest_s: the first pause and the longest; each is twice the one before, times a
            random factor in [0.5, 1].
        longest_retry_after_s: a longer wait asked for by the endpoint is a failure at once.
        patience_s: how long an endpoint may fail without one success.
        connect_patience_s: the same where it cannot be reached or answers with web pages, which
            is mostly a mistake in the configuration.
        limit_patience_s: the same where it refuses for its limits, which mostly ends by itself.
        retries_per_request, spare_retries: the budget of retries: the fraction that each request
            adds, and what is there at the beginning.
        suspect_after: failures in a row without success after which only probes are sent.
        longest_probe_s: longest pause between probes.
    """

    max_attempts: int = 10
    max_refusals: int = 100
    base_s: float = 0.5
    longest_s: float = 5.0
    longest_retry_after_s: float = 120.0
    patience_s: float = 60.0
    connect_patience_s: float = 10.0
    limit_patience_s: float = 180.0
    retries_per_request: float = 1.0
    spare_retries: float = 100.0
    suspect_after: int = 8
    longest_probe_s: float = 2.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1 or self.base_s <= 0 or self.suspect_after < 1:
            raise ParameterError(
                f"retry policy with max_attempts={self.max_attempts!r}, base_s={self.base_s!r}, "
                f"suspect_after={self.suspect_after!r}; all three must be positive."
            )

    def patience_for(self, status: str) -> float:
        """Seconds without success after which this kind of failure is taken for permanent."""
        if status in ("connection", "malformed"):
            return self.connect_patience_s
        return self.limit_patience_s if status == "rate_limited" else self.patience_s

    def pause_s(self, failures: int, asked_s: float | None) -> float:
        """Pause after this many failures of a request; at least what the endpoint asked for."""
        pause = min(self.longest_s, self.base_s * 2.0 ** min(failures - 1, 30))
        # apart from the endpoint's own wish everybody comes back at a different moment
        return max(pause * random.uniform(0.5, 1.0), (asked_s or 0.0) * random.uniform(1.0, 1.1))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Wait that a response asks for: retry-after-ms, or Retry-After as seconds or a date."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000.0
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0.0 <= value < 1e9 else None


class RetryBudget:
    """Retries that may still be made: requests fill it, retries empty it."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._fraction = policy.retries_per_request
        self._left = policy.spare_retries
        # a long healthy run must not save up for one long storm
        self._most = policy.spare_retries + 500.0 * policy.retries_per_request

    def request(self) -> None:
        """A request is asked for the first time."""
        self._left = min(self._most, self._left + self._fraction)

    def retry(self) -> bool:
        """Take one retry; False when none is left."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why an endpoint is given up: status and error for every request that is left."""

    status: str
    error: str
    retryable: bool


class Health:
    """Whether an endpoint answers at all. For use on the event loop only."""

    def __init__(
        self, name: str, policy: RetryPolicy, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._policy = policy
        self._clock = clock
        self._recovered = asyncio.Event()
        self._given_up = asyncio.Event()
        self.verdict: Verdict | None = None
        self._gave_up_at = 0.0
        self._last_success = -math.inf
        self._forget()

    def _forget(self) -> None:
        self._failures = 0
        self._since = 0.0
        self._probes = 0
        self._next_probe = 0.0

    def renew(self) -> None:
        """A new run begins while no other is under way: the endpoint gets another chance.

        Soon after it was given up the chance is one probe; if that fails too, the verdict is
        back at once instead of after the whole patience.
        """
        if self.verdict is None or self._clock() - self._gave_up_at > self._policy.patience_s:
            self._forget()
        self.verdict = None
        self._probes = 0
        self._next_probe = 0.0
        self._given_up.clear()

    @property
    def is_suspect(self) -> bool:
        """Nothing has succeeded lately: one probe at a time."""
        return self._failures >= self._policy.suspect_after

    def silent_for(self, since: float) -> float:
        """Seconds from `since` until now if nothing has succeeded meanwhile, else 0."""
        return self._clock() - since if self._last_success < since else 0.0

    def now(self) -> float:
        """Seconds on the clock by which `silent_for` counts."""
        return self._clock()

    def succeeded(self) -> None:
        """The endpoint answered."""
        self._last_success = self._clock()
        if self._failures:
            self._forget()
            self._recovered.set()
            self._recovered = asyncio.Event()

    def failed(self, status: str, error: str, *, hopeless: bool = False) -> None:
        """A try failed; `hopeless` where waiting cannot help (wrong key, no such model)."""
        now = self._clock()
        if self._failures == 0:
            self._since = now
        self._failures += 1
        if not self.is_suspect or self.verdict is not None:
            return
        lasted = now - self._since
        if hopeless or lasted >= self._policy.patience_for(status):
            self.verdict = Verdict(
                status,
                f"gave up on model {self._name!r}: {self._failures} tries in a row failed within "
                f"{lasted:.1f} s, the last one with: {error}",
                retryable=not hopeless,
            )
            self._gave_up_at = now
            self._given_up.set()
            self._recovered.set()
            self._recovered = asyncio.Event()

    async def admit(self) -> None:
        """Wait until a try may be made: at once, or as the next probe."""
        while self.is_suspect and self.verdict is None:
            now = self._clock()
            if now >= self._next_probe:
                self._probes += 1
                wait = 0.25 * 2.0 ** min(self._probes, 10)
                self._next_probe = now + min(self._policy.longest_probe_s, wait)
                return
            await _first(self._recovered, self._next_probe - now)

    async def pause(self, seconds: float) -> None:
        """Sleep before a retry; shorter when the endpoint is given up meanwhile."""
        await _first(self._given_up, seconds)


class Tries:
    """The failed tries of one request so far."""

    def __init__(self, policy: RetryPolicy, health: Health, budget: RetryBudget) -> None:
        self._policy = policy
        self._health = health
        self._budget = budget
        self._first_failure: float | None = None
        self._failures = 0
        self._refusals = 0

    @property
    def count(self) -> int:
        """All of them."""
        return self._failures + self._refusals

    def pause_s(self, status: str, asked_s: float | None) -> float | None:
        """Seconds until the next try after a failure that may pass; None to give up.

        Args:
            asked_s: the wait that the endpoint asks for.
        """
        policy = self._policy
        if self._first_failure is None:
            self._first_failure = self._health.now()
        if status == "rate_limited":
            self._refusals += 1
            goes_on = self._refusals < policy.max_refusals
        else:
            self._failures += 1
            silent = self._health.silent_for(self._first_failure)
            goes_on = (
                self._failures < policy.max_attempts
                and not (self._failures > 2 and silent >= policy.patience_for(status))
                and self._budget.retry()
            )
        if not goes_on or (asked_s or 0.0) > policy.longest_retry_after_s:
            return None
        return policy.pause_s(self.count, asked_s)


async def _first(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
