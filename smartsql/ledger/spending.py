"""What was spent on a day, and what processes have set aside of it.

The table `spending` has a row for each day (UTC) and owner. The row without an owner is what was
recorded; it is made when a day's budget is first asked for, from the attempts of the day, and grows
with every attempt from then on. The others are what processes have taken and not spent yet: what
one records moves from its row to the day's in the same transaction, so that their sum never counts
a dollar twice or not at all.
"""

from __future__ import annotations

import sqlite3
import time
from calendar import timegm

from smartsql.ledger.owners import ended_in_order, is_alive

NOBODY = ""
"""Owner of what was recorded."""


def utc_day(at: float | None = None) -> str:
    """The day in UTC of a time, now by default: "2026-01-31"."""
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def set_aside(
    db: sqlite3.Connection, day: str, owner: str, usd: float, limit_usd: float
) -> tuple[float, float] | None:
    """Take money from a day, within a transaction of the caller.

    Returns:
        None; where the limit does not cover it, what was spent on the day and what others hold.
    """
    begins = timegm(time.strptime(day, "%Y-%m-%d"))
    db.execute(
        "INSERT INTO spending SELECT ?, ?, (SELECT total(cost_usd) FROM attempts WHERE at >= ?) "
        "WHERE NOT EXISTS (SELECT 1 FROM spending WHERE day = ? AND owner = ?)",
        (day, NOBODY, begins, day, NOBODY),
    )
    spent, held, mine = db.execute(
        "SELECT total(CASE WHEN owner = ? THEN usd END), "
        "total(CASE WHEN owner NOT IN (?, ?) THEN usd END), "
        "total(CASE WHEN owner = ? THEN usd END) FROM spending WHERE day = ?",
        (NOBODY, NOBODY, owner, owner, day),
    ).fetchone()
    if spent + held + mine + usd > limit_usd:
        return spent, held
    db.execute(
        "INSERT INTO spending VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET usd = usd + excluded.usd",
        (day, owner, usd),
    )
    db.execute("DELETE FROM spending WHERE day < ? AND owner <> ?", (day, NOBODY))
    return None


def give_back(db: sqlite3.Connection, day: str, owner: str, usd: float) -> None:
    """Leave to others what an owner has taken and will not spend."""
    db.execute(
        "UPDATE spending SET usd = max(0, usd - ?) WHERE day = ? AND owner = ?", (usd, day, owner)
    )
    db.execute("DELETE FROM spending WHERE owner = ? AND usd < 1e-12", (owner,))


def count(db: sqlite3.Connection, at: float, usd: float, owner: str | None) -> None:
    """Count what attempts cost, within the transaction that records them.

    Args:
        owner: who has set money aside for them, if anyone.
    """
    if not usd:
        return
    db.execute(
        "UPDATE spending SET usd = usd + ? WHERE day = ? AND owner = ?", (usd, utc_day(at), NOBODY)
    )
    if owner is not None:
        db.execute("UPDATE spending SET usd = max(0, usd - ?) WHERE owner = ?", (usd, owner))


def of_the_dead(db: sqlite3.Connection) -> list[str]:
    """Owners that are gone and had money set aside, which nobody will spend any more.

    Their calls in flight are attempts by now, at their worst cost. Not where the machine itself
    was restarted: the notes of the last calls may be lost, and what they may cost stays taken.
    """
    owners = db.execute("SELECT DISTINCT owner FROM spending WHERE owner <> ?", (NOBODY,))
    return [row[0] for row in owners if not is_alive(row[0]) and ended_in_order(row[0])]


def release(db: sqlite3.Connection, owner: str) -> None:
    """Free all that an owner had set aside."""
    db.execute("DELETE FROM spending WHERE owner = ?", (owner,))
