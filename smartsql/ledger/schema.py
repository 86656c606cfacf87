"""The tables of a ledger, and how a file of an earlier version becomes one of this version."""

from __future__ import annotations

import sqlite3

from smartsql.errors import LedgerError
from smartsql.ledger.troubles import empty

SCHEMA_VERSION = 3

_SPENDING = """
CREATE TABLE spending (day TEXT NOT NULL, owner TEXT NOT NULL, usd REAL NOT NULL,
                       PRIMARY KEY (day, owner)) WITHOUT ROWID;
"""
_TASKS = """
CREATE TABLE tasks (name TEXT NOT NULL, version INTEGER NOT NULL, at REAL NOT NULL,
                    definition TEXT, PRIMARY KEY (name, version)) WITHOUT ROWID
"""
_SCHEMA = (
    """
CREATE TABLE identities (id INTEGER PRIMARY KEY, model TEXT NOT NULL,
                         identity TEXT NOT NULL UNIQUE);
CREATE TABLE answers (identity INTEGER NOT NULL, prompt BLOB NOT NULL, run INTEGER NOT NULL,
                      at REAL NOT NULL, status TEXT NOT NULL, text TEXT, confidence REAL,
                      prompt_tokens INTEGER, completion_tokens INTEGER, cost_usd REAL NOT NULL,
                      seconds REAL NOT NULL, served_by TEXT, scores TEXT, figures BLOB,
                      PRIMARY KEY (identity, prompt)) WITHOUT ROWID;
CREATE TABLE failures (id INTEGER PRIMARY KEY, identity INTEGER NOT NULL, prompt BLOB NOT NULL,
                       run INTEGER NOT NULL, at REAL NOT NULL, status TEXT NOT NULL,
                       final INTEGER NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER,
                       cost_usd REAL NOT NULL, seconds REAL NOT NULL, served_by TEXT, error TEXT);
CREATE VIEW attempts AS
    SELECT identity, prompt, run, at, status, prompt_tokens, completion_tokens, cost_usd, seconds,
           served_by, NULL AS error FROM answers
    UNION ALL
    SELECT identity, prompt, run, at, status, prompt_tokens, completion_tokens, cost_usd, seconds,
           served_by, error FROM failures;
CREATE TABLE claims (identity INTEGER NOT NULL, prompt BLOB NOT NULL, owner TEXT NOT NULL,
                     until REAL NOT NULL, PRIMARY KEY (identity, prompt)) WITHOUT ROWID;
CREATE TABLE statements (key BLOB PRIMARY KEY, seed INTEGER NOT NULL, prompts BLOB NOT NULL,
                         weights BLOB NOT NULL, expected_costs TEXT NOT NULL, features BLOB);
CREATE TABLE runs (id INTEGER PRIMARY KEY, statement BLOB NOT NULL, at REAL NOT NULL, report TEXT);
CREATE TABLE starts (statement BLOB PRIMARY KEY, digests TEXT NOT NULL);
"""
    + _SPENDING
    + _TASKS
)

_MIGRATIONS = {
    1: "ALTER TABLE answers ADD COLUMN scores TEXT;"
    "ALTER TABLE statements ADD COLUMN features BLOB;"
    "CREATE TABLE starts (statement BLOB PRIMARY KEY, digests TEXT NOT NULL)",
    2: "ALTER TABLE answers ADD COLUMN figures BLOB;" + _SPENDING + _TASKS,
}
"""From each earlier version to the next: columns are added at the end, nothing is rewritten."""


def prepare(db: sqlite3.Connection, path: str, *, new: bool = False) -> None:
    """Make the tables in a new file, or bring those of an earlier version up to date.

    Runs within a transaction of the caller.

    Raises:
        LedgerError: the file is another database, or was written by a later version.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == SCHEMA_VERSION:
        return
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
    if version == 0 and not tables and new:
        steps = [_SCHEMA]
    elif version == 0 and not tables:
        raise empty(path)
    elif version in _MIGRATIONS and {"answers", "failures", "statements"} <= tables:
        steps = [_MIGRATIONS[step] for step in range(version, SCHEMA_VERSION)]
    else:
        raise LedgerError(
            f"{path!r} is not a ledger of this version (found {version}, expected "
            f"{SCHEMA_VERSION}). Set store (or SMARTSQL_STORE) to another file."
        )
    for statement in ";".join(steps).split(";"):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
