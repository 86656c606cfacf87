"""Statements and their runs in the ledger: what they remember, and their reports."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from contextlib import suppress

import numpy as np

from smartsql.features import packed, unpacked
from smartsql.gateway import DELIVERED
from smartsql.ledger.base import LedgerFile
from smartsql.ledger.lost import LOST
from smartsql.ledger.rows import Statement


class StatementTable(LedgerFile):
    """The statements and runs of a ledger; safe for threads and processes."""

    def starts(self, key: bytes, new: Mapping[str, str]) -> dict[str, str]:
        """What the learning models of a statement start from: a digest by model.

        The first time, before `statement`, that is `new`; it stays what it was. A statement of
        earlier times that has none starts from nothing: what was learned since may have been
        learned from its own rows, in its own order.
        """
        with self._lock, self._guard("write"):
            with self._transaction() as db:
                db.execute(
                    "INSERT INTO starts SELECT ?, ? WHERE NOT EXISTS "
                    "(SELECT 1 FROM statements WHERE key = ?) ON CONFLICT DO NOTHING",
                    (key, json.dumps(dict(new)), key),
                )
            row = self._db.execute(
                "SELECT digests FROM starts WHERE statement = ?", (key,)
            ).fetchone()
        found: dict[str, str] = json.loads(row[0]) if row else {}
        return found

    def statement(self, key: bytes, new: Statement) -> Statement:
        """The statement stored under this key, or `new` after storing it.

        The same rows with the same promise and models get the same seed again, so that a rerun
        takes the same decisions and pays nothing.
        """
        weights = np.ascontiguousarray(new.weights, dtype="<i8").tobytes()
        with self._lock, self._guard("write"):
            with self._transaction() as db:
                db.execute(
                    "INSERT INTO statements VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (
                        key,
                        new.seed,
                        new.prompts,
                        weights,
                        json.dumps(new.expected_costs),
                        new.features and packed(new.features),
                    ),
                )
            found = self.find_statement(key)
        assert found is not None
        return found

    def find_statement(self, key: bytes) -> Statement | None:
        """The statement of that key, None if there is none."""
        with self._lock, self._guard("read"):
            row = self._db.execute(
                "SELECT seed, prompts, weights, expected_costs, features FROM statements "
                "WHERE key = ?",
                (key,),
            ).fetchone()
        if row is None:
            return None
        weights = np.frombuffer(row[2], dtype="<i8").astype(np.int64)
        features = None if row[4] is None else unpacked(row[4])
        return Statement(row[0], row[1], weights, tuple(json.loads(row[3])), features)

    def begin_run(self, statement: bytes) -> int:
        """The number of a new run of a statement."""
        with self._lock, self._guard("write"), self._transaction() as db:
            cursor = db.execute(
                "INSERT INTO runs (statement, at) VALUES (?, ?)", (statement, time.time())
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def end_run(self, run: int, report: str) -> None:
        """Keep the report of a run, whose calls have all come to an end.

        What it wrote goes from the log to the file itself, as far as no reader is in the way, so
        that the file alone tells of all finished statements.
        """
        with self._lock, self._guard("write"):
            with self._transaction() as db:
                db.execute("UPDATE runs SET report = ? WHERE id = ?", (report, run))
                # others may have taken it for dead: what they took for lost has come back
                db.execute("DELETE FROM failures WHERE run = ? AND status = ?", (run, LOST))
            with suppress(sqlite3.OperationalError):  # it is kept in the log as well
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def totals_of_run(self, run: int) -> dict[str, tuple[int, float]]:
        """By identity: answers delivered in a run, and dollars spent."""
        delivered = ", ".join(f"'{status}'" for status in sorted(DELIVERED))
        with self._lock, self._guard("read"):
            rows = self._db.execute(
                f"SELECT i.identity, sum(status IN ({delivered})), total(cost_usd) "
                "FROM attempts a JOIN identities i ON i.id = a.identity WHERE run = ? GROUP BY 1",
                (run,),
            )
            return {row[0]: (row[1], row[2]) for row in rows}

    def report_of_run(self, run: int) -> str | None:
        """The report that was kept of a run."""
        with self._lock, self._guard("read"):
            row = self._db.execute("SELECT report FROM runs WHERE id = ?", (run,)).fetchone()
        return None if row is None else row[0]

    def last_reports(self, limit: int) -> list[str]:
        """The reports of the last finished runs, newest first."""
        with self._lock, self._guard("read"):
            rows = self._db.execute(
                "SELECT report FROM runs WHERE report IS NOT NULL ORDER BY id DESC LIMIT ?",
                (limit,),
            )
            return [row[0] for row in rows]

    def has_report(self, statement: bytes) -> bool:
        """Whether a run of the statement was finished."""
        with self._lock, self._guard("read"):
            row = self._db.execute(
                "SELECT 1 FROM runs WHERE statement = ? AND report IS NOT NULL LIMIT 1",
                (statement,),
            ).fetchone()
        return row is not None

    def spend_of_run(self, run: int) -> tuple[int, float, float]:
        """Attempts, dollars and seconds of a run."""
        with self._lock, self._guard("read"):
            row = self._db.execute(
                "SELECT count(*), total(cost_usd), total(seconds) FROM attempts WHERE run = ?",
                (run,),
            ).fetchone()
        return int(row[0]), float(row[1]), float(row[2])
