"""How a ledger's file is opened, or made."""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from contextlib import closing, suppress
from pathlib import Path
from threading import Lock

from smartsql.ledger.schema import prepare
from smartsql.ledger.troubles import empty, halved

BUSY_S = 30.0
"""How long a writer waits for another one."""

_opening = Lock()


def connected(path: str) -> sqlite3.Connection:
    """A connection in WAL mode to a ledger, which is made if there is none.

    An existing file is not opened by anything but SQLite: closing a descriptor would end the locks
    that other connections of this process hold on it. The change to WAL asks for a lock that
    SQLite does not wait for, so that of several processes all but one may be refused.

    Raises:
        LedgerError: the file is empty, or a part of it is missing.
    """
    with _opening:
        if path != ":memory:":
            _check(path)
            if not os.path.exists(path):
                _make(path)
        db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_S, check_same_thread=False)
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
                return db
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    db.close()
                    raise
                time.sleep(0.01)
            except sqlite3.Error:
                db.close()
                raise


def _check(path: str) -> None:
    """Refuse what SQLite would take for a new database, or for a complete one."""
    wal, index = f"{path}-wal", f"{path}-shm"
    if not os.path.exists(path):
        if os.path.exists(wal) and os.path.getsize(wal) and not os.path.exists(path):
            raise halved(path, missing=path, left=wal)
    elif os.path.getsize(path) == 0:
        raise empty(path)
    # whoever closes it removes the index before the log, whoever opens it makes the log first
    elif not os.path.exists(wal) and os.path.exists(index) and not os.path.exists(wal):
        raise halved(path, missing=wal, left=index)


def _make(path: str) -> None:
    """Make an empty ledger, whole from its first moment: under another name, then linked.

    So a file without tables is never one that is being made. It is readable by its owner alone,
    as prompts are private.
    """
    new = f"{path}-new-{uuid.uuid4().hex}"
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        with closing(sqlite3.connect(new, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("BEGIN IMMEDIATE")
            prepare(db, new, new=True)
            db.execute("COMMIT")
        with suppress(FileExistsError):
            _link(new, path)
    finally:
        Path(new).unlink(missing_ok=True)


def _link(new: str, path: str) -> None:
    """Give a file its name unless that is taken.

    Raises:
        FileExistsError: it is.
    """
    try:
        os.link(new, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if not os.path.exists(path):
            os.rename(new, path)
