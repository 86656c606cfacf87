"""Permits of requests and tokens a minute for all processes that share a ledger.

The table `pace` has for each lane (an endpoint and a model) what every owner holds for calls that
it makes now or soon ("held"), what calls that ended still count for and until when ("ended"), and
how full the lane's bucket was when ("level"). One transaction moves an owner's permits from one to
the other, so that nothing is counted twice or not at all. What a process that was killed held
counts for a minute from the moment this is noticed.

The file is opened a second time, without waiting for the disk: after a power failure nothing is
lost but a few moments' counts, and no answer ever waits behind them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

from smartsql.errors import LedgerError
from smartsql.gateway.pace import MARGIN, NONE, SHORTEST_WAIT_S, Change, Granted, Limits, Permits
from smartsql.ledger.opening import connected
from smartsql.ledger.owners import is_alive, new_owner

FORGOTTEN_S = 900.0
"""After so long without a word the owner of permits, on another machine, is taken for dead."""

ON_THE_WAY = 0.05
"""Part of a minute after which what a process sent before it was killed has arrived."""

_TABLE = """
CREATE TABLE IF NOT EXISTS pace (
    lane TEXT NOT NULL, kind TEXT NOT NULL, owner TEXT NOT NULL, at REAL NOT NULL,
    requests REAL NOT NULL, tokens REAL NOT NULL, PRIMARY KEY (lane, kind, owner, at)
) WITHOUT ROWID
"""
_ADD = (
    "INSERT INTO pace VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "requests = requests + excluded.requests, tokens = tokens + excluded.tokens"
)


class SharedCounter:
    """The counter of a lane in a ledger; implements `gateway.pace.Counter`. Safe for threads.

    Raises:
        LedgerError: the ledger cannot be read or written.
    """

    is_shared = True

    def __init__(self, path: str, lane: str) -> None:
        self._path = path
        self._lane = lane
        self._owner = new_owner()
        self._held = NONE
        self._db: sqlite3.Connection | None = None
        self._lock = Lock()

    def now(self) -> float:
        """Seconds on the clock that all processes read."""
        return time.time()

    def exchange(self, limits: Limits, change: Change) -> Granted:
        """Count a change; permits are held from now on."""
        with self._changing() as db:
            now = self.now()  # not before the lock is ours: others have written meanwhile
            self._bury(db, now, limits.minute_s)
            for until, used in change.ended:
                db.execute(_ADD, (self._lane, "ended", self._owner, until, *used))
                self._held = self._held.plus(used, -1.0)
            self._held = self._held.plus(change.returned, -1.0)
            others = db.execute(
                "SELECT total(requests), total(tokens) FROM pace "
                "WHERE lane = ? AND kind <> 'level' AND NOT (kind = 'held' AND owner = ?)",
                (self._lane, self._owner),
            ).fetchone()
            level = self._level(db, limits, now, change.returned)
            granted = limits.decide(Permits(*others).plus(self._held), level, change)
            self._held = self._held.plus(granted.permits)
            self._put(db, "held", self._owner, now, self._held)
            self._put(db, "level", "", now, level.plus(granted.permits))
            if not granted.wait_s:
                return granted
            (first,) = db.execute(
                "SELECT min(at) FROM pace WHERE lane = ? AND kind = 'ended'", (self._lane,)
            ).fetchone()
        soon_s = granted.wait_s if first is None else max(SHORTEST_WAIT_S, first - now)
        return Granted(NONE, min(granted.wait_s, soon_s))

    def close(self) -> None:
        """Close the file; the next exchange opens it again."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _level(
        self, db: sqlite3.Connection, limits: Limits, now: float, returned: Permits
    ) -> Permits:
        """What is in the lane's bucket now."""
        row = db.execute(
            "SELECT at, requests, tokens FROM pace WHERE lane = ? AND kind = 'level'",
            (self._lane,),
        ).fetchone()
        at, level = (row[0], Permits(*row[1:])) if row else (now, NONE)
        left = limits.drained(level, max(0.0, now - at)).plus(returned, -1.0)
        return Permits(max(0.0, left.requests), max(0.0, left.tokens))

    def _put(
        self, db: sqlite3.Connection, kind: str, owner: str, now: float, permits: Permits
    ) -> None:
        """Replace the one row of this kind."""
        key = (self._lane, kind, owner)
        db.execute("DELETE FROM pace WHERE lane = ? AND kind = ? AND owner = ?", key)
        if permits != NONE:
            db.execute(_ADD, (*key, now, *permits))

    def _bury(self, db: sqlite3.Connection, now: float, minute_s: float) -> None:
        """Forget calls whose minute is over; end what dead owners hold."""
        until = now + minute_s * (1.0 + MARGIN + ON_THE_WAY)
        db.execute(
            "DELETE FROM pace WHERE lane = ? AND kind = 'ended' AND at <= ?", (self._lane, now)
        )
        db.execute(  # counted by a clock that was set back since
            "UPDATE OR REPLACE pace SET at = ? WHERE lane = ? AND kind = 'ended' AND at > ?",
            (until, self._lane, until + minute_s),
        )
        owners = db.execute(
            "SELECT owner, at, requests, tokens FROM pace "
            "WHERE lane = ? AND kind = 'held' AND owner <> ?",
            (self._lane, self._owner),
        ).fetchall()
        for owner, at, requests, tokens in owners:
            if at + FORGOTTEN_S < now or not is_alive(owner):
                self._put(db, "held", owner, now, NONE)
                db.execute(_ADD, (self._lane, "ended", owner, until, requests, tokens))

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """The file within a transaction; what is held is undone with it."""
        with self._lock:
            held = self._held
            try:
                db = self._opened()
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield db
                    db.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):  # after a full disk SQLite has done so itself
                        if db.in_transaction:
                            db.execute("ROLLBACK")
                    raise
            except (sqlite3.Error, OSError) as error:
                self._held = held
                raise LedgerError(
                    f"cannot count requests and tokens a minute in the store of paid answers "
                    f"{self._path!r}: {error}. Nothing more is asked, since the limits of the "
                    f"endpoint could be passed. Make the file writable or set store (or "
                    f"SMARTSQL_STORE) to another one."
                ) from error

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            db = connected(self._path)
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(_TABLE)
            self._db = db
        return self._db
