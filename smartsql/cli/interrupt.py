"""Ctrl-C while DuckDB holds the thread."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
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

    def target() -> None:
        try:
            results.append(work())
        except BaseException as error:  # carried to the caller's thread
            errors.append(error)

    thread = Thread(target=target, name="smartsql-statement", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(POLL_S)
    except KeyboardInterrupt:
        interrupt()
        thread.join()
        raise
    if errors:
        raise errors[0]
    return results[0]
