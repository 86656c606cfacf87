"""Tasks that were defined with SQL, in the ledger beside the answers: every version is kept."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from smartsql.ledger.store import Ledger

_LATEST = (
    "SELECT name, version, at, definition FROM tasks AS t WHERE version = "
    "(SELECT max(version) FROM tasks WHERE name = t.name)"
)


@dataclass(frozen=True, slots=True)
class StoredTask:
    """One version of a task.

    Attributes:
        version: 1 for the first definition of the name; a dropped task's numbers are not used
            again.
        at: when it was defined, in seconds since 1970.
        fields: prompt, labels and equal.
    """

    name: str
    version: int
    at: float
    fields: dict[str, Any]


class TaskTable:
    """The tasks in a ledger; safe for threads and processes.

    Raises:
        LedgerError: the ledger cannot be read or written.
    """

    def __init__(self, store: Ledger) -> None:
        self._store = store

    def all(self) -> list[StoredTask]:
        """The latest version of every task that is not dropped, by name."""
        with self._store.changing() as db:
            rows = db.execute(f"{_LATEST} AND definition IS NOT NULL ORDER BY name").fetchall()
        return [StoredTask(name, version, at, json.loads(text)) for name, version, at, text in rows]

    def find(self, name: str) -> StoredTask | None:
        """The latest version of a task; None if there is none or it was dropped."""
        return next((task for task in self.all() if task.name == name), None)

    def write(self, name: str, fields: dict[str, Any] | None, *, replace: bool = True) -> int:
        """A new version of a task, or its end (`fields` None).

        Returns:
            Its version; 0 if nothing was written, as it exists and may not be replaced, or is to
            be dropped and does not exist.
        """
        with self._store.changing() as db:
            row = db.execute(f"{_LATEST} AND name = ?", (name,)).fetchone()
            exists = row is not None and row[3] is not None
            if exists and not (replace or fields is None):
                return 0
            if fields is None and not exists:
                return 0
            version = 1 if row is None else int(row[1]) + 1
            text = None if fields is None else json.dumps(fields)
            db.execute("INSERT INTO tasks VALUES (?, ?, ?, ?)", (name, version, time.time(), text))
            return version
