"""Ctrl-C while DuckDB holds the thread.

DuckDB hears of it, since it looks for signals while it waits; but then it waits for its own
threads, which may be waiting for models. So whoever is heard has to tell the models too.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.1
PATIENCE_S = 2.0
"""For so long after Ctrl-C further ones are not heard: what came back is being kept."""


@contextmanager
def hearing(interrupt: Callable[[], None]) -> Iterator[None]:
    """Within this block Ctrl-C also calls `interrupt`, if this is the thread that hears of it.

    Handlers that a program has of its own decide whether Ctrl-C is an interrupt, by raising.

    Args:
        interrupt: ends what other threads do for this one. It runs on a thread of its own, since
            this one may have been interrupted anywhere, with any lock in its hands.

    Raises:
        KeyboardInterrupt: instead of the error that became of it.
    """
    own = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(own):
        yield
        return
    heard: list[float] = []

    def handler(number: int, frame: FrameType | None) -> None:
        if heard and time.monotonic() < heard[0] + PATIENCE_S:
            return
        try:
            own(number, frame)
        except BaseException:  # whatever a handler raises, it means an interrupt
            heard.append(time.monotonic())
            threading.Thread(target=interrupt, name="smartsql-interrupt", daemon=True).start()
            raise

    signal.signal(signal.SIGINT, handler)
    try:
        yield
    except Exception as error:  # whatever was made of it on the way
        if heard:
            raise KeyboardInterrupt from error
        raise
    finally:
        if signal.getsignal(signal.SIGINT) is handler:
            signal.signal(signal.SIGINT, own)


def interruptible(work: Callable[[], T], interrupt: Callable[[], None]) -> T:
    """Do `work` on another thread, so that Ctrl-C reaches this one at once.

    Raises:
        KeyboardInterrupt: after `interrupt` was called and the work has ended.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    # not Thread.join: in Python 3.11 one that is interrupted takes the thread for ended
    done = threading.Event()

    def target() -> None:
        try:
            results.append(work())
        except BaseException as error:  # carried to the caller's thread
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=target, name="smartsql-statement", daemon=True).start()
    try:
        _wait(done)
    except KeyboardInterrupt:
        interrupt()
        _wait(done, deaf_until=time.monotonic() + PATIENCE_S)
        raise
    if errors:
        raise errors[0]
    return results[0]


def _wait(done: threading.Event, deaf_until: float = 0.0) -> None:
    """Wait for an event; Ctrl-C is not heard until a moment on the monotonic clock."""
    while True:
        try:
            while not done.wait(POLL_S):
                pass
            return
        except KeyboardInterrupt:
            if time.monotonic() >= deaf_until:
                raise
