"""The file behind a ledger: opened once, written in transactions, troubles told in words."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock

from smartsql.errors import LedgerError
from smartsql.ledger import opening
from smartsql.ledger.schema import prepare
from smartsql.ledger.troubles import trouble

_HASTY_S = 1.0
"""How long a writer waits for another one after it has waited in vain."""


class LedgerFile:
    """One SQLite file for all statements, threads and processes.

    Raises:
        LedgerError: it cannot be opened, read or written, is damaged, or is not a ledger.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = str(path)
        self._lock = RLock()
        self._records = 0
        self._waits_s = opening.BUSY_S
        with self._guard("open"):
            if not self.in_memory_only:
                # what lies beside it is found wherever the program goes meanwhile
                file = Path(self.path).expanduser().absolute()
                self.path = str(file)
                file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = opening.connected(self.path)
            self._wait(opening.BUSY_S)
            try:
                self._db.execute("PRAGMA synchronous = FULL")
                # KiB: a slice of answers without spills
                self._db.execute("PRAGMA cache_size = -65536")
                with self._transaction():
                    prepare(self._db, self.path, new=self.in_memory_only)
            except BaseException:
                self._db.close()
                raise

    @property
    def in_memory_only(self) -> bool:
        """Whether it ends with the process."""
        return self.path == ":memory:"

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _wait(self, seconds: float) -> None:
        """How long to wait for other writers from now on."""
        self._waits_s = seconds
        self._db.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}")

    def _hurry(self) -> None:
        """Wait less from now on: what holds the file has held it for long."""
        self._wait(min(self._waits_s, _HASTY_S))

    @contextmanager
    def _guard(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self.trouble(what, error) from error

    def trouble(self, what: str, error: Exception) -> LedgerError:
        """An error in words; `what` failed ("open", "read", "write")."""
        return trouble(self.path, what, error, self._waits_s)

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """The database in a transaction, for the tables of other modules of this package."""
        with self._lock, self._guard("write"):
            with self._transaction() as db:
                yield db
            self._records += 1

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            # Ctrl-C too: a transaction left open would lock the ledger for everybody. After a full
            # disk SQLite has rolled back by itself.
            with suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            raise
