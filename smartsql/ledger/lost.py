"""Calls of which nobody knows what came: their process ended while they were perhaps in flight.

They become attempts with the status "lost" and the most that they may have cost: money that was
possibly spent, never counted as certain. See `sent` for how they are known.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smartsql.ledger import sent, spending
from smartsql.ledger.rows import INSERT_FAILURE, grouped

LOST = "lost"
"""The status of such an attempt."""
_ERROR = (
    "its process ended while the call was perhaps in flight: it may have been billed, at most "
    "this much, and its answer did not arrive"
)


@dataclass(frozen=True, slots=True)
class Lost:
    """How many calls were lost, and what they may have cost at most."""

    calls: int
    usd: float

    def __add__(self, other: Lost) -> Lost:
        return Lost(self.calls + other.calls, self.usd + other.usd)


NOTHING = Lost(0, 0.0)


def record(db: sqlite3.Connection, path: str) -> Lost:
    """Make attempts of the calls in a file of notes of which nothing is recorded.

    Runs within a transaction of the caller. Done twice, it changes nothing the second time.
    """
    calls, usd = 0, 0.0
    try:
        at, sections = Path(path).stat().st_mtime, list(sent.read(path))
    except FileNotFoundError:  # another process was faster
        return NOTHING
    for section in sections:
        where = section.run, section.identity
        known = _known(db, *where, [key for key, _ in section.calls])
        rows = [
            (section.identity, key, section.run, at, LOST, False, None, None, worst, 0.0, None,
             _ERROR)
            for key, worst in section.calls
            if key not in known
        ]  # fmt: skip
        db.executemany(INSERT_FAILURE, rows)
        calls, usd = calls + len(rows), usd + sum(row[8] for row in rows)
    spending.count(db, at, usd, None)
    return Lost(calls, usd)


def _known(db: sqlite3.Connection, run: int, identity: int, keys: Sequence[bytes]) -> set[bytes]:
    """Those calls of a run of which the ledger tells what came."""
    if not keys:
        return set()
    rows = db.execute(
        "SELECT prompt FROM failures WHERE run = ? AND identity = ? AND (final OR status = ?)",
        (run, identity, LOST),
    )
    known = {row[0] for row in rows}
    for some, marks in grouped(keys):
        rows = db.execute(
            f"SELECT prompt FROM answers WHERE identity = ? AND run = ? AND prompt IN ({marks})",
            (identity, run, *some),
        )
        known.update(row[0] for row in rows)
    return known
