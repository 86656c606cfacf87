"""The store behind the ledger: one SQLite file for all statements, threads and processes."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

import numpy as np

from smartsql.errors import LedgerError
from smartsql.features import packed, unpacked
from smartsql.gateway import DELIVERED, Attempt
from smartsql.ledger import claims, spending
from smartsql.ledger.opening import connected
from smartsql.ledger.rows import (
    INSERT_ANSWER,
    INSERT_FAILURE,
    Statement,
    Stored,
    grouped,
    keep_better,
    scores_text,
    stored_of,
)
from smartsql.ledger.schema import prepare


class Ledger:
    """The store of attempts and answers; safe for threads and processes.

    Raises:
        LedgerError: the file cannot be opened, read or written, or is not a ledger.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = str(path)
        self._lock = RLock()
        self._identities: dict[str, int] = {}
        self._records = 0
        with self._guard("open"):
            if self.path != ":memory:":
                # what lies beside it is found wherever the program goes meanwhile
                file = Path(self.path).expanduser().absolute()
                self.path = str(file)
                file.parent.mkdir(parents=True, exist_ok=True)
            self._db = connected(self.path)
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA cache_size = -65536")  # KiB: a slice of answers without spills
            with self._transaction():
                prepare(self._db, self.path)

    @staticmethod
    def in_memory() -> Ledger:
        """A ledger that ends with the process, for tests and replays."""
        return Ledger(":memory:")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _guard(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if "not a database" in str(error):
                raise LedgerError(
                    f"{self.path!r} is not a ledger: {error}. It was left alone; set store (or "
                    f"SMARTSQL_STORE) to another file."
                ) from error
            raise LedgerError(
                f"cannot {what} the store of paid answers {self.path!r}: {error}. Nothing more is "
                f"asked, since an answer that cannot be kept would be paid for again. Make the "
                f"file writable or set store (or SMARTSQL_STORE) to another one."
            ) from error

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """The database in a transaction, for the tables of other modules of this package."""
        with self._lock, self._guard("write"), self._transaction() as db:
            yield db

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            # Ctrl-C too: a transaction left open would lock the ledger for everybody
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # --- answers -----------------------------------------------------------------------------

    def identity(self, model: str, identity: str) -> int:
        """The number of an identity; registered at first sight."""
        with self._lock, self._guard("write"):
            if identity not in self._identities:
                with self._transaction() as db:
                    db.execute(
                        "INSERT INTO identities (model, identity) VALUES (?, ?) "
                        "ON CONFLICT DO NOTHING",
                        (model, identity),
                    )
                    self._identities[identity] = db.execute(
                        "SELECT id FROM identities WHERE identity = ?", (identity,)
                    ).fetchone()[0]
            return self._identities[identity]

    def lookup(self, identity: int, prompts: Sequence[bytes]) -> dict[bytes, Stored]:
        """The stored answers among these prompts (16-byte digests)."""
        found: dict[bytes, Stored] = {}
        with self._lock, self._guard("read"):
            first = self._db.execute(
                "SELECT 1 FROM answers WHERE identity = ? LIMIT 1", (identity,)
            ).fetchone()
            for some, marks in grouped(prompts if first else ()):
                rows = self._db.execute(
                    "SELECT prompt, status, text, confidence, cost_usd, seconds, scores, "
                    "figures FROM answers "
                    f"WHERE identity = ? AND prompt IN ({marks})",
                    (identity, *some),
                )
                found.update((row[0], stored_of(row[1:])) for row in rows)
        return found

    def failed(self, run: int, identity: int) -> dict[bytes, tuple[float, float]]:
        """Prompts that ended without a delivered answer in a run: what the last attempt cost.

        Costs are (USD, seconds).
        """
        with self._lock, self._guard("read"):
            rows = self._db.execute(
                "SELECT prompt, cost_usd, seconds FROM failures "
                "WHERE run = ? AND identity = ? AND final AND status <> 'ok'",
                (run, identity),
            )
            return {row[0]: (row[1], row[2]) for row in rows}

    def record(
        self,
        run: int,
        identity: int,
        attempts: Sequence[tuple[bytes, Attempt]],
        lease: str | None = None,
    ) -> None:
        """Make attempts durable in one transaction; delivered ones become answers.

        An "ok" answer is never replaced.

        Args:
            lease: under which money was set aside for them, if any was.
        """
        now = time.time()
        delivered: Sequence[tuple[bytes, Attempt]] = attempts
        others: Sequence[tuple[bytes, Attempt]] = ()
        if any(a.status != "ok" or not a.final for _, a in attempts):
            delivered = [(p, a) for p, a in attempts if a.final and a.status in DELIVERED]
            others = [(p, a) for p, a in attempts if not (a.final and a.status in DELIVERED)]
        answers = [
            (identity, prompt, run, now, a.status, a.text, a.confidence, a.prompt_tokens,
             a.completion_tokens, a.cost_usd, a.seconds, a.served_by, scores_text(a),
             a.figures)
            for prompt, a in delivered
        ]  # fmt: skip
        failures = [
            (identity, prompt, run, now, a.status, a.final, a.prompt_tokens,
             a.completion_tokens, a.cost_usd, a.seconds, a.served_by, a.error)
            for prompt, a in others
        ]  # fmt: skip
        with self._lock, self._guard("write"), self._transaction() as db:
            spending.count(db, now, sum([a.cost_usd for _, a in attempts]), lease)
            db.executemany(INSERT_FAILURE, failures)
            db.execute("SAVEPOINT answers")
            try:
                db.executemany(INSERT_ANSWER, answers)
            except sqlite3.IntegrityError:  # some prompt was answered meanwhile: one by one
                db.execute("ROLLBACK TO answers")
                for answer in answers:
                    keep_better(db, answer)
        self._records += 1

    def set_aside(
        self, day: str, owner: str, usd: float, limit_usd: float
    ) -> tuple[float, float] | None:
        """Take money from a day for all processes; see `spending.set_aside`."""
        with self._lock, self._guard("write"), self._transaction() as db:
            return spending.set_aside(db, day, owner, usd, limit_usd)

    def give_back(self, day: str, owner: str, usd: float) -> None:
        """Leave to others what an owner has taken and will not spend."""
        with self._lock, self._guard("write"), self._transaction() as db:
            spending.give_back(db, day, owner, usd)

    # --- claims ------------------------------------------------------------------------------

    def version(self) -> tuple[int, int]:
        """Changes whenever anyone has written since."""
        with self._lock, self._guard("read"):
            return self._db.execute("PRAGMA data_version").fetchone()[0], self._records

    def claim(self, identity: int, prompts: Sequence[bytes], owner: str) -> set[bytes]:
        """Claim the right to ask, until `release` or the end of the lease.

        Returns:
            The prompts that belong to another owner; all others are ours now.
        """
        with self._lock, self._guard("write"), self._transaction() as db:
            return claims.claim(db, identity, prompts, owner)

    def reap(self) -> None:
        """End the claims of processes of this machine that are gone, and those that expired."""
        with self._lock, self._guard("write"):
            claims.reap(self._db)

    def renew(self, owner: str) -> None:
        """Extend all leases of an owner."""
        with self._lock, self._guard("write"):
            claims.renew(self._db, owner)

    def release(self, owner: str) -> None:
        """End all claims of an owner."""
        with self._lock, self._guard("write"):
            claims.release(self._db, owner)

    # --- statements and runs -----------------------------------------------------------------

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
        """Keep the report of a run."""
        with self._lock, self._guard("write"):
            self._db.execute("UPDATE runs SET report = ? WHERE id = ?", (report, run))

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

    # --- for people --------------------------------------------------------------------------

    def attempts(self) -> Iterator[list[tuple[object, ...]]]:
        """All attempts, oldest first, in groups of rows.

        A row holds: time, run, model, prompt digest (hex), status, tokens in, tokens out, USD,
        seconds, error.
        """
        with self._lock, self._guard("read"):
            rows = self._db.execute(
                "SELECT at, run, model, lower(hex(prompt)), status, prompt_tokens, "
                "completion_tokens, cost_usd, seconds, error "
                "FROM attempts JOIN identities ON identities.id = attempts.identity ORDER BY at"
            )
            while group := rows.fetchmany(10_000):
                yield group

    def totals(self) -> list[tuple[str, int, int, int, float, float]]:
        """For each model: attempts, tokens in and out, USD, seconds over the ledger's life."""
        with self._lock, self._guard("read"):
            return self._db.execute(
                "SELECT model, count(*), total(prompt_tokens), total(completion_tokens), "
                "total(cost_usd), total(seconds) "
                "FROM attempts JOIN identities ON identities.id = attempts.identity GROUP BY model"
            ).fetchall()
