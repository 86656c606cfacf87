"""A line of progress on stderr, for people only."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from smartsql.asking.exchange import Progress
from smartsql.printable import plain
from smartsql.reports.report import format_cost

EVERY_S = 0.1


@contextmanager
def progress_line() -> Iterator[Progress | None]:
    """A progress callback that keeps one line up to date; None where nobody is watching."""
    if not sys.stderr.isatty():
        yield None
        return
    line = _Line()
    try:
        yield line
    finally:
        line.clear()


class _Line:
    def __init__(self) -> None:
        self._next = 0.0
        self._is_shown = False

    def __call__(self, model: str, done: int, total: int, spent_usd: float) -> None:
        now = time.monotonic()
        if done >= total:
            self.clear()
        elif now >= self._next:
            self._next = now + EVERY_S
            self._is_shown = True
            money = f", {format_cost(spent_usd, 'usd')} so far" if spent_usd else ""
            sys.stderr.write(f"\r\x1b[K{plain(model)}: {done:,} of {total:,} asked{money}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Leave no trace."""
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._is_shown = False
