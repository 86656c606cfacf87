"""Ctrl-C while DuckDB holds the thread."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.1


def interruptible(work: Callable[[], T], interrupt: Callable[[], None]) -> T:
    """Do `work` on another thread, so that Ctrl-C reaches this one at once.

    Raises:
        KeyboardInterrupt: after `interrupt` was called and the work has ended.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    # not Thread.join: in Python 3.11 one that is interrupted takes the thread for ended
    done = Event()

    def target() -> None:
        try:
            results.append(work())
        except BaseException as error:  # carried to the caller's thread
            errors.append(error)
        finally:
            done.set()

    Thread(target=target, name="smartsql-statement", daemon=True).start()
    try:
        while not done.wait(POLL_S):
            pass
    except KeyboardInterrupt:
        interrupt()
        while not done.wait(POLL_S):
            pass
        raise
    if errors:
        raise errors[0]
    return results[0]
