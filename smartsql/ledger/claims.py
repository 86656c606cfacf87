"""Who may ask about which prompt: claims of processes that share a ledger."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

from smartsql.ledger.owners import is_alive
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


def reap(db: sqlite3.Connection) -> None:
    """End the claims of processes of this machine that are gone, and those that expired."""
    owners = db.execute("SELECT owner, max(until) FROM claims GROUP BY owner")
    now = time.time()
    for owner in [owner for owner, until in owners if until < now or not is_alive(owner)]:
        release(db, owner)


def renew(db: sqlite3.Connection, owner: str) -> None:
    """Extend all leases of an owner."""
    db.execute("UPDATE claims SET until = ? WHERE owner = ?", (time.time() + LEASE_S, owner))


def release(db: sqlite3.Connection, owner: str) -> None:
    """End all claims of an owner."""
    db.execute("DELETE FROM claims WHERE owner = ?", (owner,))
