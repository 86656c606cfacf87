"""Who may ask about which prompt: claims of processes that share a ledger."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress

from smartsql.ledger import lost, sent, spending
from smartsql.ledger.lost import NOTHING, Lost
from smartsql.ledger.owners import is_alive, is_here
from smartsql.ledger.rows import grouped

LEASE_S = 60.0
"""How long a claim of a process on another machine holds without renewal."""


def claim(
    db: sqlite3.Connection, identity: int, prompts: Sequence[bytes], owner: str
) -> set[bytes]:
    """Claim prompts inside a transaction; those that belong to another owner."""
    now = time.time()
    changed = db.executemany(
        "INSERT INTO claims VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "owner = excluded.owner, until = excluded.until "
        "WHERE until < ? OR owner = excluded.owner",
        ((identity, prompt, owner, now + LEASE_S, now) for prompt in prompts),
    ).rowcount
    if changed == len(prompts):
        return set()
    others: set[bytes] = set()
    for some, marks in grouped(prompts):
        rows = db.execute(
            f"SELECT prompt FROM claims WHERE identity = ? AND owner <> ? AND prompt IN ({marks})",
            (identity, owner, *some),
        )
        others.update(row[0] for row in rows)
    return others


def abandoned(db: sqlite3.Connection, ledger: str) -> list[str]:
    """Owners who are gone, or whose leases have expired, and who hold something."""
    now = time.time()
    until: dict[str, float] = dict(
        db.execute("SELECT owner, max(until) FROM claims GROUP BY owner").fetchall()
    )
    notes = sent.files(ledger)
    # notes are made after claims and end with them: those of another machine without a claim
    # are of an owner that ended in between
    kept = {owner for owner in notes if owner not in until and not is_here(owner)}
    found = [
        owner
        for owner in {**until, **notes}
        if owner in kept or until.get(owner, now) < now or not is_alive(owner)
    ]
    return [*found, *spending.of_the_dead(db)]


def reap(db: sqlite3.Connection, ledger: str, owners: Sequence[str]) -> tuple[Lost, list[str]]:
    """End what abandoned owners hold, inside a transaction.

    What was perhaps in flight when they ended becomes attempts; what they had set aside of the
    day's money is free again, as those attempts count against it.

    Returns:
        What was lost, and the files of notes to be removed after the transaction.
    """
    total, files = NOTHING, []
    notes = sent.files(ledger)
    for owner in owners:
        release(db, owner)
        if is_here(owner) and is_alive(owner):
            continue  # it was only slow: what comes of its calls may still be recorded
        if path := notes.get(owner):
            total += lost.record(db, path)
            files.append(path)
    for owner in spending.of_the_dead(db):
        spending.release(db, owner)
    return total, files


def forget(files: Sequence[str]) -> None:
    """Remove files of notes, all of which is recorded."""
    for path in files:
        with suppress(FileNotFoundError):
            os.unlink(path)


def renew(db: sqlite3.Connection, owner: str) -> None:
    """Extend all leases of an owner."""
    db.execute("UPDATE claims SET until = ? WHERE owner = ?", (time.time() + LEASE_S, owner))


def release(db: sqlite3.Connection, owner: str) -> None:
    """End all claims of an owner."""
    db.execute("DELETE FROM claims WHERE owner = ?", (owner,))
