"""What can still be read of a damaged ledger, copied into a new one.

A ledger is a tree of pages; damage mostly hits a few of them. Tables are read by ranges of their
keys: a range that cannot be read is halved until what is left is as small as what was hit, so that
all other rows are found. Prompts are digests, spread evenly, so halves of their range are halves
of the rows. What was paid for is then looked for on every page by itself, as a damaged inner page
hides all below it. Where the first page is gone, which says where the tables begin, that of a new
ledger takes its place: tables begin on the same pages in every ledger.

The damaged files are copied first and never written.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from smartsql.errors import LedgerError
from smartsql.ledger.pages import PAGE, TABLE_LEAF, rows
from smartsql.ledger.store import Ledger

_MOST_FAILURES = 20_000
"""Reads of one table that may fail; a damaged page takes some hundred."""
_MOST_ROWS = 2**48
_RowRange = Callable[[int, int], Iterator[tuple[object, ...]]]

_NUMBERED = {
    "identities": "typeof(identity) = 'text' AND typeof(model) = 'text'",
    "failures": "typeof(prompt) = 'blob' AND typeof(cost_usd) = 'real'",
    "statements": "typeof(key) = 'blob' AND typeof(weights) = 'blob'",
    "runs": "typeof(statement) = 'blob'",
    "starts": "typeof(statement) = 'blob'",
}
"""Tables whose rows have numbers, and what is true of each of their rows."""
_SMALL = ("spending", "tasks")


def rescue(damaged: Path, new: Path) -> dict[str, int]:
    """Copy what can be read of a damaged ledger into a new one.

    Returns:
        Rows that were found, by table.

    Raises:
        LedgerError: there is a file of the new name already, or nothing can be read.
    """
    if new.exists() or not damaged.is_file():
        raise LedgerError(
            f"{str(new)!r} exists already; name a file that is to be made."
            if new.exists()
            else f"there is no file {str(damaged)!r} to read from."
        )
    with tempfile.TemporaryDirectory(dir=new.absolute().parent) as folder:
        copy = Path(folder) / "damaged"
        for end in ("", "-wal"):
            if Path(f"{damaged}{end}").exists():
                shutil.copyfile(f"{damaged}{end}", f"{copy}{end}")
        _graft(copy, Path(folder) / "empty")
        found = Path(folder) / "found"
        Ledger(found).close()
        with closing(_opened(copy)) as old, closing(_opened(found)) as db:
            counts = _copied(old, db, copy)
        if not any(counts.values()):
            raise LedgerError(
                f"nothing of {str(damaged)!r} can be read any more. Restore a backup of it, or "
                f"begin anew with another file."
            )
        shutil.move(found, new)
    return counts


def _opened(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    return db


def _graft(copy: Path, empty: Path) -> None:
    """Give the copy the first page of a new ledger where its own cannot be used."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(copy)) as db:
        names = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
        if {"identities", "answers"} <= names:
            return
    Ledger(empty).close()
    pages = -(-copy.stat().st_size // PAGE)
    first = bytearray(empty.read_bytes()[:PAGE])
    first[28:32] = max(pages, 1).to_bytes(4, "big")  # pages, which must not be more than there are
    first[32:40] = bytes(8)  # no free pages
    raw = bytearray(copy.read_bytes()).ljust(max(pages, 1) * PAGE, b"\0")
    raw[:PAGE] = first
    copy.write_bytes(raw)
    Path(f"{copy}-wal").unlink(missing_ok=True)  # it belongs to the page that is gone


def _copied(old: sqlite3.Connection, db: sqlite3.Connection, copy: Path) -> dict[str, int]:
    with suppress(sqlite3.Error):
        old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.execute("BEGIN")
    for table, condition in _NUMBERED.items():
        _copy_numbered(old, db, table, condition)
    _copy_names(old, db)
    _copy_answers(old, db)
    _copy_scattered(copy, db)
    for table in _SMALL:
        _insert(db, table, _until_damage(old, f"SELECT * FROM {table}", ()))
    _copy_batches(old, db)
    db.execute("COMMIT")
    tables = ("answers", *_NUMBERED, *_SMALL)
    return {t: db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables}


def _copy_batches(old: sqlite3.Connection, db: sqlite3.Connection) -> None:
    """Batches, with the calls of those under way and their claims: these would be paid again."""
    from smartsql.ledger.batches import CLAIMED, TABLES

    found = list(_until_damage(old, "SELECT * FROM batches", ()))
    if found:
        for table in TABLES:
            db.execute(table)
        _insert(db, "batches", iter(found))
        _insert(db, "batch_calls", _until_damage(old, "SELECT * FROM batch_calls", ()))
        _insert(db, "claims", _until_damage(old, f"SELECT * FROM claims WHERE {CLAIMED}", ()))


def _copy_numbered(
    old: sqlite3.Connection, db: sqlite3.Connection, table: str, condition: str
) -> None:
    def some(low: int, high: int) -> Iterator[tuple[object, ...]]:
        query = f"SELECT * FROM {table} WHERE rowid >= ? AND rowid < ? AND {condition}"
        yield from old.execute(query, (low, high))

    _insert(db, table, _halving(some, 0, _MOST_ROWS))


def _copy_names(old: sqlite3.Connection, db: sqlite3.Connection) -> None:
    """Identities that only the index of their texts still knows; the model's name is lost."""
    query = "SELECT id, '?', identity FROM identities INDEXED BY sqlite_autoindex_identities_1"
    _insert(db, "identities", _until_damage(old, query, ()))


def _copy_answers(old: sqlite3.Connection, db: sqlite3.Connection) -> None:
    for (identity,) in db.execute("SELECT id FROM identities").fetchall():

        def some(low: int, high: int, identity: int = identity) -> Iterator[tuple[object, ...]]:
            last = high.to_bytes(9, "big")[1:] if high < 2**64 else b"\xff" * 17
            yield from old.execute(
                "SELECT * FROM answers WHERE identity = ? AND prompt >= ? AND prompt < ? "
                "AND typeof(status) = 'text' AND length(prompt) = 16",
                (identity, low.to_bytes(8, "big"), last),
            )

        _insert(db, "answers", _halving(some, 0, 2**64))


def _copy_scattered(copy: Path, db: sqlite3.Connection) -> None:
    """Answers and failures on pages to which no way leads any more.

    Without the name of their identity answers are of no use. Failures are attempts that were paid.
    """
    known = {row[0] for row in db.execute("SELECT id FROM identities")}
    answers, failures = [], []
    for kind, number, values in rows(copy.read_bytes()):
        if kind != TABLE_LEAF and len(values) >= 12 and _is_attempt(values, known):
            answers.append(values)
        elif kind == TABLE_LEAF and len(values) == 13 and _is_attempt(values[1:], known):
            failures.append((number, *values[1:]))
    _insert(db, "answers", iter(answers))
    _insert(db, "failures", iter(failures))


def _is_attempt(values: Sequence[object], known: set[int]) -> bool:
    """Whether values begin as those of an attempt: identity, prompt, run, time, status."""
    identity, prompt, run, at, status, *_ = values
    return (
        identity in known
        and isinstance(prompt, bytes)
        and len(prompt) == 16
        and isinstance(run, int)
        and isinstance(at, (int, float))
        and isinstance(status, str)
        and status.isidentifier()
    )


def _halving(some: _RowRange, low: int, high: int) -> Iterator[tuple[object, ...]]:
    """The rows of a range; of what cannot be read, those of its halves. Some come twice.

    Widest ranges first: where much is damaged, tries end before all of it is halved to the last.
    """
    ranges, failures = deque([(low, high)]), 0
    while ranges and failures < _MOST_FAILURES:
        low, high = ranges.popleft()
        try:
            yield from some(low, high)
        except sqlite3.Error:
            failures += 1
            if high - low > 1:
                middle = (low + high) // 2
                ranges += [(low, middle), (middle, high)]


def _until_damage(
    db: sqlite3.Connection, query: str, values: Sequence[object]
) -> Iterator[tuple[object, ...]]:
    with suppress(sqlite3.Error):
        yield from db.execute(query, values)


def _insert(db: sqlite3.Connection, table: str, rows: Iterator[tuple[object, ...]]) -> None:
    """Insert rows of this table, or of an earlier version with fewer columns at its end."""
    columns = len(db.execute(f"PRAGMA table_info({table})").fetchall())
    marks = ", ".join("?" * columns)
    for row in rows:
        whole = (*row, *[None] * (columns - len(row)))
        db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", whole)
