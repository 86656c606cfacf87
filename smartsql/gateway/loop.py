"""The event loop of all network models of this process, on a thread of its own.

Callers (SQL functions, the command line, notebooks with a loop of their own) only hand in work and
read queues, so no loop of theirs is needed, used or blocked.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import Future, TimeoutError
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

THREAD_NAME = "smartsql-network"


class Closable(Protocol):
    """What is closed before the process ends."""

    def close(self) -> None:
        """Release what is held; may be called again."""
        ...


class LoopThread:
    """An event loop that runs until the process ends."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._open: weakref.WeakSet[Closable] = weakref.WeakSet()
        self._process = os.getpid()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=THREAD_NAME, daemon=True
        )
        self._thread.start()

    @property
    def is_usable(self) -> bool:
        """False in a forked child, where the thread does not exist."""
        return self._process == os.getpid() and self._thread.is_alive()

    def spawn(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin the work and return; thread-safe."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def wait(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T | None:
        """Do the work and wait for it; None when it is not done in time.

        Must not be called from the loop's own thread, which would wait for itself.
        """
        future = self.spawn(work)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            return None

    def close_at_exit(self, what: Closable) -> None:
        """Have it closed before the loop stops, if it still exists then."""
        self._open.add(what)

    def stop(self) -> None:
        """Close what is open, then end the thread."""
        if not self.is_usable:
            return
        for what in list(self._open):
            what.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(2.0)
        if not self._thread.is_alive():
            self._loop.close()


_lock = threading.Lock()
_shared: LoopThread | None = None


def shared_loop() -> LoopThread:
    """The loop of this process; started at first use, stopped when the process ends."""
    global _shared  # noqa: PLW0603 - one per process is the point
    with _lock:
        if _shared is None or not _shared.is_usable:
            _shared = LoopThread()
            atexit.register(_shared.stop)
        return _shared
