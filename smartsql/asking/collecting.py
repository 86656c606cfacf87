"""Fewer runs of the garbage collector while calls run."""

from __future__ import annotations

import gc
from threading import Lock


class _RareCollections:
    """Lets the garbage collector run less often while calls run.

    A call makes millions of short-lived objects without cycles; looking for cycles among them
    at Python's default rate takes a third of the engine's own time.
    """

    OBJECTS = 100_000

    def __init__(self) -> None:
        self._lock = Lock()
        self._depth = 0
        self._before = gc.get_threshold()

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._before = gc.get_threshold()
                gc.set_threshold(max(self._before[0], self.OBJECTS), *self._before[1:])
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                gc.set_threshold(*self._before)


RARE_COLLECTIONS = _RareCollections()
