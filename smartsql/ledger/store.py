"""The store behind the ledger: one SQLite file for all statements, threads and processes."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from smartsql.errors import LedgerError
from smartsql.gateway import Attempt
from smartsql.ledger import claims, lost, served, spending
from smartsql.ledger.lost import LOST, NOTHING, Lost
from smartsql.ledger.opening import BUSY_S
from smartsql.ledger.rows import Batch, Stored, batch_of, grouped, is_written, stored_of, write
from smartsql.ledger.runs import StatementTable
from smartsql.ledger.sent import Notes, Section
from smartsql.ledger.troubles import unsaved

log = logging.getLogger(__name__)


class Ending(NamedTuple):
    """An owner whose claims and notes are to end; see `Ledger.release`."""

    owner: str
    notes: Notes | None
    settled: bool

    def written(self, db: sqlite3.Connection) -> Lost:
        """End the claims, within a transaction of the caller; the calls that are lost."""
        claims.release(db, self.owner)
        if self.settled or self.notes is None:
            return NOTHING
        return lost.record(db, self.notes.path)


class Ledger(StatementTable):
    """The store of attempts and answers; safe for threads and processes.

    Raises:
        LedgerError: the file cannot be opened, read or written, or is not a ledger.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._identities: dict[str, int] = {}
        self._unsaved: list[Batch] = []
        self._tried = 0
        self._ended: list[Ending] = []
        self._lost = NOTHING

    @staticmethod
    def in_memory() -> Ledger:
        """A ledger that ends with the process, for tests and replays."""
        return Ledger(":memory:")

    def close(self) -> None:
        """Write what could not be written so far, and close the file.

        Raises:
            LedgerError: it still cannot be written, and is lost.
        """
        with self._lock:
            try:
                self.save()
            finally:
                super().close()

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
        with self._lock:
            self._unsaved.append(batch_of(run, identity, attempts, time.time(), lease))
            self._records += 1
            self.save()

    def save(self) -> None:
        """Write the attempts that could not be written so far.

        Raises:
            LedgerError: they still cannot; they are kept in memory until they can.
        """
        with self._lock:
            if not (self._unsaved or self._ended):
                return
            tried, self._tried = self._tried, len(self._unsaved)
            try:
                with self._guard("write"), self._transaction() as db:
                    for number, batch in enumerate(self._unsaved):
                        # Ctrl-C may have come between an earlier commit and the news of it
                        if number < tried and is_written(db, batch):
                            continue
                        write(db, batch)
                        served.note(db, batch.served, batch.at)
                    found = [ending.written(db) for ending in self._ended]
            except LedgerError as error:
                self._hurry()
                n = sum(len(batch.answers) for batch in self._unsaved)
                usd = sum(batch.usd for batch in self._unsaved)
                if not n:
                    raise
                raise unsaved(error, self.path, n, usd) from error
            if self._waits_s < BUSY_S:
                self._wait(BUSY_S)
            self._lost = sum(found, start=self._lost)
            ended, self._ended, self._unsaved, self._tried = self._ended, [], [], 0
            for ending in ended:
                if ending.notes is not None:
                    ending.notes.close()

    def catch_up(self) -> None:
        """Write what could not be written so far, and end what processes that are gone have left.

        Raises:
            LedgerError: nothing can be written, so nothing may be asked.
        """
        self.save()
        self.reap()

    def take_lost(self) -> Lost:
        """Calls that were found to be lost, each told once."""
        with self._lock:
            found, self._lost = self._lost, NOTHING
        return found

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
        with self._lock:
            self.save()  # a release that waits to be written must not end what is claimed now
            with self._guard("write"), self._transaction() as db:
                return claims.claim(db, identity, prompts, owner)

    def notes(self, owner: str) -> Notes | None:
        """Where an owner notes what it sends; None for a ledger that ends with the process."""
        return None if self.in_memory_only else Notes(self.path, owner)

    def section(self, notes: Notes, identity: int, run: int, keys: Sequence[bytes]) -> Section:
        """Room for notes on calls that are about to be handed over."""
        with self._guard("write"):
            return notes.section(identity, run, keys)

    def reap(self) -> None:
        """End what owners that are gone or have let their leases expire still hold.

        Their calls that were perhaps in flight become attempts.
        """
        with self._lock, self._guard("write"):
            gone = claims.abandoned(self._db, self.path)
            if not gone:
                return
            with self._transaction() as db:
                found, files = claims.reap(db, self.path, gone)
            self._lost += found
        claims.forget(files)

    def renew(self, owner: str) -> None:
        """Extend all leases of an owner."""
        with self._lock, self._guard("write"):
            claims.renew(self._db, owner)

    def release(self, owner: str, notes: Notes | None = None, *, settled: bool = True) -> None:
        """End all claims of an owner, and its notes; later, where nothing can be written now.

        Args:
            settled: what came of all its calls is recorded; else those that are not become lost.
        """
        with self._lock:
            self._ended.append(Ending(owner, notes, settled))
            try:
                self.save()
            except LedgerError as error:
                log.warning("claims stay until the store can be written: %s", error)

    # --- for people --------------------------------------------------------------------------

    def attempts(self) -> Iterator[list[tuple[object, ...]]]:
        """All attempts, oldest first, in groups of rows; calls of the dead among them.

        A row holds: time, run, model, prompt digest (hex), status, tokens in, tokens out, USD,
        seconds, error.
        """
        with suppress(LedgerError):  # what can be read is told even where nothing can be written
            self.reap()
        with self._lock, self._guard("read"):
            rows = self._db.execute(
                "SELECT at, run, model, lower(hex(prompt)), status, prompt_tokens, "
                "completion_tokens, cost_usd, seconds, error "
                "FROM attempts JOIN identities ON identities.id = attempts.identity ORDER BY at"
            )
            while group := rows.fetchmany(10_000):
                yield group

    def totals(self) -> list[tuple[str, int, int, int, float, float]]:
        """For each model: attempts, tokens in and out, USD, seconds over the ledger's life.

        What lost calls may have cost is not among the dollars.
        """
        with self._lock, self._guard("read"):
            return self._db.execute(
                "SELECT model, count(*), total(prompt_tokens), total(completion_tokens), "
                "total(cost_usd) FILTER (WHERE status <> ?), total(seconds) "
                "FROM attempts JOIN identities ON identities.id = attempts.identity GROUP BY model",
                (LOST,),
            ).fetchall()
