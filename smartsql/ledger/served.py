"""Which model ids endpoints gave with their answers, and when: how a change behind a name is seen.

Every answer has the id of the model that gave it. The table here sums them up, so that looking for
a change costs nothing where there was none. It is made, from the answers, by the first process
that needs it, so that ledgers without it are read as they are.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from smartsql.ledger.base import LedgerFile
from smartsql.ledger.rows import grouped

_TABLE = """
CREATE TABLE served (identity INTEGER NOT NULL, served_by TEXT NOT NULL, last REAL NOT NULL,
                     PRIMARY KEY (identity, served_by)) WITHOUT ROWID
"""
_FROM_ANSWERS = """
INSERT INTO served SELECT identity, served_by, max(at) FROM answers
WHERE served_by IS NOT NULL GROUP BY identity, served_by
"""
_NOTE = """
INSERT INTO served VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET last = max(last, excluded.last)
"""
_FORGOTTEN = """
INSERT INTO failures (identity, prompt, run, at, status, final, prompt_tokens, completion_tokens,
                      cost_usd, seconds, served_by, error)
SELECT identity, prompt, run, at, status, 1, prompt_tokens, completion_tokens, cost_usd, seconds,
       served_by, 'forgotten' FROM answers
"""


class Origin(NamedTuple):
    """Who gave an answer, as far as the endpoint said, and in which run."""

    served_by: str | None
    run: int


def note(db: sqlite3.Connection, answers: Iterable[tuple[int, str | None]], at: float) -> None:
    """Note the ids (identity, served_by) of answers, within a transaction of the caller."""
    found = {pair for pair in answers if pair[1]}
    if found:
        _made(db)
        db.executemany(_NOTE, [(*pair, at) for pair in found])


def saw(store: LedgerFile, identity: int, served_by: Iterable[str]) -> None:
    """Note ids that an endpoint gave with answers that are kept elsewhere."""
    with store.changing() as db:
        note(db, [(identity, one) for one in served_by], time.time())


def ids(store: LedgerFile, identity: int) -> list[str]:
    """The model ids that were ever given for an identity, the latest one first."""
    with store.changing() as db:
        _made(db)
        rows = db.execute(
            "SELECT served_by FROM served WHERE identity = ? ORDER BY last DESC, served_by",
            (identity,),
        )
        return [row[0] for row in rows]


def origins(store: LedgerFile, identity: int, keys: Sequence[bytes]) -> Mapping[bytes, Origin]:
    """Where the usable answers to these prompts came from."""
    found: dict[bytes, Origin] = {}
    for some, marks in grouped(keys):
        with store.changing() as db:  # for each group alone, so that others can write meanwhile
            rows = db.execute(
                "SELECT prompt, served_by, run FROM answers "
                f"WHERE identity = ? AND status = 'ok' AND prompt IN ({marks})",
                (identity, *some),
            )
            found.update((prompt, Origin(served_by, run)) for prompt, served_by, run in rows)
    return found


def forget(store: LedgerFile, models: Sequence[str], served_by: str | None = None) -> int:
    """Take answers for attempts that were paid and are of no use, so that they are asked anew.

    Args:
        models: names of models, as the ledger knows them.
        served_by: only answers that this model id gave.

    Returns:
        Answers that were forgotten.
    """
    mine = f"identity IN (SELECT id FROM identities WHERE model IN ({','.join('?' * len(models))}))"
    values: tuple[str, ...] = tuple(models)
    if served_by is not None:
        mine, values = f"{mine} AND served_by = ?", (*values, served_by)
    with store.changing() as db:
        _made(db)
        count = db.execute(f"{_FORGOTTEN} WHERE {mine}", values).rowcount
        db.execute(f"DELETE FROM answers WHERE {mine}", values)
        db.execute(f"DELETE FROM served WHERE {mine}", values)
    return count


def names(store: LedgerFile) -> list[str]:
    """Names of the models that have answers."""
    with store.changing() as db:
        rows = db.execute(
            "SELECT DISTINCT model FROM identities WHERE EXISTS "
            "(SELECT 1 FROM answers WHERE identity = identities.id) ORDER BY model"
        )
        return [row[0] for row in rows]


def comparisons(store: LedgerFile, statement: bytes) -> int:
    """How often a statement has compared its reference with earlier answers, and said so."""
    with store.changing() as db:
        rows = db.execute(
            "SELECT report FROM runs WHERE statement = ? AND report IS NOT NULL", (statement,)
        ).fetchall()
    found = [json.loads(report).get("drift", ()) for (report,) in rows]
    return sum(any(f["role"] == "reference" and f["asked"] for f in drift) for drift in found)


def _made(db: sqlite3.Connection) -> None:
    """Make the table where there is none."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'served'").fetchone():
        db.execute(_TABLE)
        db.execute(_FROM_ANSWERS)
