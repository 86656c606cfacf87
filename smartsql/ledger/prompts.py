"""Prompts as they were sent, beside their digests, where `store_prompts` asks for it.

A ledger without them, the default, knows prompts by digests alone. The table is made by the first
statement that keeps any, so that other ledgers do not even have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from smartsql.ledger.store import Ledger

_TABLE = """
CREATE TABLE IF NOT EXISTS prompts (digest BLOB PRIMARY KEY, prompt TEXT NOT NULL) WITHOUT ROWID
"""


def keeper(ledger: Ledger) -> Callable[[Iterable[tuple[bytes, str]]], None]:
    """A function that keeps prompts under the digests by which attempts name them.

    It raises LedgerError where the file cannot be written.
    """

    def keep(prompts: Iterable[tuple[bytes, str]]) -> None:
        with ledger.changing() as db:
            db.execute(_TABLE)
            db.executemany("INSERT INTO prompts VALUES (?, ?) ON CONFLICT DO NOTHING", prompts)

    return keep
