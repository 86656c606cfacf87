"""How a ledger's file is opened, or made."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from threading import Lock

_BUSY_S = 30.0
"""How long a writer waits for another one."""

_opening = Lock()


def connected(path: str) -> sqlite3.Connection:
    """A connection in WAL mode; a new file is readable by its owner alone, as prompts are private.

    An existing file is not opened by anything but SQLite: closing a descriptor would end the locks
    that other connections of this process hold on it. The change to WAL asks for a lock that
    SQLite does not wait for, so that of several processes with a new file all but one are refused.
    """
    with _opening:
        if path != ":memory:":
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        db = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_S, check_same_thread=False)
        deadline = time.monotonic() + _BUSY_S
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
                return db
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    db.close()
                    raise
                time.sleep(0.01)
