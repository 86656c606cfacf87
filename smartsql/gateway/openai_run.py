"""One `start` of a network model: its requests, its workers, and what goes to the reader."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from threading import Event

from smartsql.gateway import Attempt, Attempts, Request
from smartsql.gateway.limits import Purse

log = logging.getLogger(__name__)

GROUPING_S = 0.004
"""Attempts that end within this time go to the reader as one list, to be stored as one."""
WATCH_S = 0.05
"""How often a run looks whether it was cancelled."""
RESTING_PER_WORKER = 3

Answer = Callable[["Run", Request], Awaitable[None]]


class Run:
    """Workers that pull requests from one iterator until each has its final attempt.

    Args:
        width: requests that are worked on at once.

    Attributes:
        at_stake: what calls in flight may cost, by request index.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        labels: tuple[str, ...],
        out: Attempts,
        cancelled: Event,
        purse: Purse,
        width: int,
    ) -> None:
        self.labels = labels
        self.purse = purse
        self.at_stake: dict[int, float] = {}
        self._out = out
        self._cancelled = cancelled
        self._queue = iter(requests)
        self._open = len(requests)
        self._width = min(width, len(requests))
        self._awake = 0
        self._workers: set[asyncio.Task[None]] = set()
        self._pending: list[Attempt] = []
        self._ended = asyncio.Event()

    async def work(self, answer: Answer) -> None:
        """Answer all requests with `answer`, which must finish the request it is given."""
        self._answer = answer
        for _ in range(self._width):
            self._hire()
        while not self._ended.is_set():
            if self._cancelled.is_set():
                await self.abandon()
                return
            try:
                async with asyncio.timeout(WATCH_S):
                    await self._ended.wait()
            except TimeoutError:
                pass

    def emit(self, attempt: Attempt) -> None:
        """Pass an attempt on, together with what else ends at about the same time."""
        self._pending.append(attempt)
        self._open -= attempt.final
        if self._open == 0:
            self._flush()
            self._ended.set()
        elif len(self._pending) == 1:
            asyncio.get_running_loop().call_later(GROUPING_S, self._flush)

    def finish(
        self, request: Request, status: str, error: str | None = None, retryable: bool = False
    ) -> None:
        """The final attempt of a request that ends without an outcome of its own."""
        cost_usd = self.at_stake.pop(request.index, 0.0)
        self.emit(
            Attempt(
                request.index, True, status, cost_usd=cost_usd, error=error, retryable=retryable
            )
        )

    async def rest(self, pause: Awaitable[None], places: int) -> None:
        """Wait while another worker takes over, so that pauses do not cost throughput.

        Not when the workers left are enough for the places that the endpoint grants.
        """
        self._awake -= 1
        if self._awake < places and len(self._workers) <= RESTING_PER_WORKER * self._width:
            self._hire()
        try:
            await pause
        finally:
            self._awake += 1

    async def abandon(self, status: str = "cancelled", error: str | None = None) -> None:
        """End the calls in flight and finish every request that is left with this status."""
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for request in self._queue:
            self.finish(request, status, error)

    def _flush(self) -> None:
        if self._pending:
            pending, self._pending = self._pending, []
            self._out.put(pending)

    def _hire(self) -> None:
        self._awake += 1
        worker = asyncio.get_running_loop().create_task(self._work())
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    async def _work(self) -> None:
        try:
            for request in self._queue:
                await self._one(request)
                if self._awake > self._width:
                    return  # those who rested are back
        finally:
            self._awake -= 1

    async def _one(self, request: Request) -> None:
        try:
            await self._answer(self, request)
        except asyncio.CancelledError:
            self.finish(request, "cancelled")
            raise
        except Exception as error:
            # the edge of the thread: whatever went wrong here, the reader waits for this request
            log.exception("request %d ended with an internal error", request.index)
            self.finish(request, "malformed", f"internal error ({type(error).__name__})")
