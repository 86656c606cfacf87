"""Batches under way: what an endpoint works off while no process of ours need be there.

The table `batches` has a row for each batch, made before anything of it leaves this process, and
`batch_calls` the calls of those that are not over. The claims of these calls belong to the batch
itself, so that nobody asks the same meanwhile, and end with it. What it may cost at most is set
aside of the day's money in its own name.

A batch goes through these states: "new" (nothing can come of it yet), "sent" (its file is at the
endpoint, so the endpoint may have been told to begin), "open" (it is known under the endpoint's
name for it), then "over" or "dropped". What a batch answered and its end are written in one
transaction, by whoever is first.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from smartsql.gateway import Attempt
from smartsql.gateway.openai_batch import Facts
from smartsql.gateway.prices import price_facts, price_of_facts
from smartsql.ledger import served, spending
from smartsql.ledger.base import LedgerFile
from smartsql.ledger.owners import is_alive
from smartsql.ledger.rows import batch_of, grouped, write

NEW, SENT, OPEN, OVER, DROPPED = "new", "sent", "open", "over", "dropped"
KEPT_S = 30 * 86_400.0
"""How long the calls of a batch stay claimed at most; endpoints keep what they answered as long."""
LEFT_S = 7200.0
"""After so long a batch that is still being handed in was left by its maker."""
_HOST = "(batch)"
"""Stands for the machine in the name under which a batch holds claims: no process of any."""
CLAIMED = f"owner LIKE '{_HOST}:%'"
"""Holds of the claims of batches."""

TABLES = (
    "CREATE TABLE IF NOT EXISTS batches (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, "
    "identity INTEGER NOT NULL, run INTEGER NOT NULL, model TEXT NOT NULL, url TEXT NOT NULL, "
    "id TEXT, file TEXT, state TEXT NOT NULL, said TEXT, done INTEGER NOT NULL, "
    "calls INTEGER NOT NULL, at REAL NOT NULL, until REAL, usd REAL NOT NULL, facts TEXT NOT NULL, "
    "maker TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS batch_calls (batch INTEGER NOT NULL, number INTEGER NOT NULL, "
    "prompt BLOB NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (batch, number)) WITHOUT ROWID",
)
"""As they are made on demand."""
_COLUMNS = (
    "number, name, identity, run, model, url, id, file, state, said, done, calls, at, until, usd, "
    "facts, maker"
)


@dataclass(frozen=True, slots=True)
class Placed:
    """A batch as the ledger knows it.

    Attributes:
        number: in the ledger; with `name`, which the endpoint keeps too, it is ours.
        identity: of the model, under which its answers are kept.
        run: in which it was made.
        model: the model's name in the configuration.
        url: address of the endpoint.
        id: the endpoint's name for it, None until known.
        file: the endpoint's name for its requests, None until there.
        said: the endpoint's own word for its state, when last asked.
        done: requests with an outcome, when last asked.
        calls: requests.
        at: when it was made; seconds since 1970, as `until`.
        until: when it ends at the latest, None where unknown.
        usd: what it may cost at most.
        maker: process that made it; empty when that has given up.
    """

    number: int
    name: str
    identity: int
    run: int
    model: str
    url: str
    id: str | None
    file: str | None
    state: str
    said: str | None
    done: int
    calls: int
    at: float
    until: float | None
    usd: float
    facts: str
    maker: str

    @property
    def is_under_way(self) -> bool:
        """Whether answers may still come of it."""
        return self.state in (NEW, SENT, OPEN)

    @property
    def is_left(self) -> bool:
        """Whether its maker is gone without having seen it begin."""
        if self.state not in (NEW, SENT):
            return False
        # of a process on another machine nobody knows whether it runs, but none takes so long
        late = time.time() - self.at > LEFT_S
        return late or not self.maker or not is_alive(self.maker)


class Batches:
    """The batches of a ledger; safe for threads and processes.

    All methods raise LedgerError where the ledger cannot be read or written.
    """

    def __init__(self, ledger: LedgerFile) -> None:
        self._ledger = ledger

    def prepare(
        self,
        batch: Placed,
        facts: Facts,
        keys: Sequence[bytes],
        *,
        usd: float,
        owner: str,
        lease: str | None,
    ) -> Placed | None:
        """Keep a batch that is about to be made; its calls are its own from now on.

        None where its maker has lost the claims to some of them meanwhile.

        Args:
            batch: as `new_batch` makes it.
            keys: of its calls, in the order of the facts' sizes.
            usd: what it may cost at most.
            owner: who has claimed the calls.
            lease: under which money was set aside for them, if any was.
        """
        with self._changing() as db:
            if not _hand_over(db, batch, keys, owner):
                return None
            row = (
                batch.name, batch.identity, batch.run, batch.model, batch.url, NEW, 0, len(keys),
                batch.at, usd, _told(facts), batch.maker,
            )  # fmt: skip
            number = db.execute(
                "INSERT INTO batches (name, identity, run, model, url, state, done, calls, at, "
                "usd, facts, maker) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            ).lastrowid
            db.executemany(
                "INSERT INTO batch_calls VALUES (?, ?, ?, ?)",
                (
                    (number, k, key, size)
                    for k, (key, size) in enumerate(zip(keys, facts.sizes, strict=True))
                ),
            )
            _set_aside(db, batch, usd, lease)
            return _read(db, "number = ?", number)[0]

    def sent(self, batch: Placed, file: str) -> Placed:
        """Its file is there: from now on the endpoint may be told to begin; the batch as it is."""
        self._set(batch, "state = ?, file = ?", SENT, file)
        return replace(batch, state=SENT, file=file)

    def opened(self, batch: Placed, id_: str, said: str, until: float | None) -> None:
        """The endpoint has begun."""
        self._set(batch, "state = ?, id = ?, said = ?, until = ?", OPEN, id_, said, until)

    def seen(self, batch: Placed, said: str, done: int) -> None:
        """What the endpoint says of it; nothing is written where that is known."""
        if (batch.said, batch.done) != (said, done):
            self._set(batch, "said = ?, done = ?", said, done)

    def left(self, batch: Placed) -> None:
        """Its maker does not know whether it began; whoever comes next is to find out."""
        self._set(batch, "maker = ''")

    def adopted(self, batch: Placed, maker: str) -> bool:
        """Take over a batch that was left; False when somebody else was faster."""
        with self._changing() as db:
            changed = db.execute(
                "UPDATE batches SET maker = ? WHERE number = ? AND maker = ? AND state IN (?, ?)",
                (maker, batch.number, batch.maker, NEW, SENT),
            )
            return changed.rowcount == 1

    def drop(self, batch: Placed) -> None:
        """Nothing will come of it: its calls may be asked again, its money is free."""
        with self._changing() as db:
            _end(db, batch, DROPPED)

    def collect(
        self, batch: Placed, parts: Sequence[tuple[int, Sequence[tuple[bytes, Attempt]]]]
    ) -> bool:
        """Keep what came of a batch and end it, at once; False when somebody else has done so.

        Args:
            parts: attempts by their keys, with the run as whose calls they count.
        """
        now = time.time()
        with self._changing() as db:
            if not _read(db, "number = ? AND state = ?", batch.number, OPEN):
                return False
            for run, attempts in parts:
                rows = batch_of(run, batch.identity, attempts, now, _owner(batch.name))
                write(db, rows)
                served.note(db, rows.served, now)
            _end(db, batch, OVER)
        return True

    def exist(self) -> bool:
        """Whether there ever were any."""
        with self._ledger.changing() as db:
            return _exist(db)

    def all(self) -> list[Placed]:
        """All batches, oldest first."""
        with self._ledger.changing() as db:
            return _read(db, "1 ORDER BY number") if _exist(db) else []

    def under_way(self, identity: int | None = None) -> list[Placed]:
        """Batches of which answers may still come, oldest first; of one identity, or all."""
        which, values = ("identity = ? AND ", (identity,)) if identity is not None else ("", ())
        with self._ledger.changing() as db:
            states = (NEW, SENT, OPEN)
            if not _exist(db):
                return []
            return _read(db, f"{which}state IN (?, ?, ?) ORDER BY number", *values, *states)

    def contents(self, batch: Placed) -> tuple[Facts, list[bytes]]:
        """How to understand its answers, and the keys of its calls."""
        with self._changing() as db:
            rows = db.execute(
                "SELECT prompt, bytes FROM batch_calls WHERE batch = ? ORDER BY number",
                (batch.number,),
            ).fetchall()
        told = json.loads(batch.facts)
        facts = Facts(
            batch.name,
            price_of_facts(told["price"]),
            tuple(told["labels"]),
            told["judged"],
            told["longest"],
            [size for _, size in rows],
        )
        return facts, [key for key, _ in rows]

    def demote(self, identity: int, keys: Sequence[bytes]) -> None:
        """Mark answers as not of the type that their call asks for.

        Answers that were taken without their statement at hand are first read by it.
        """
        with self._ledger.changing() as db:
            for some, marks in grouped(keys):
                db.execute(
                    "UPDATE answers SET status = 'unusable' WHERE identity = ? "
                    f"AND status = 'ok' AND prompt IN ({marks})",
                    (identity, *some),
                )

    def _set(self, batch: Placed, what: str, *values: object) -> None:
        with self._changing() as db:
            db.execute(f"UPDATE batches SET {what} WHERE number = ?", (*values, batch.number))

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._ledger.changing() as db:
            for table in TABLES:
                db.execute(table)
            yield db


def new_batch(*, identity: int, run: int, model: str, url: str, maker: str) -> Placed:
    """A batch that is about to be made, under a name that no other one has."""
    name = uuid.uuid4().hex
    now = time.time()
    return Placed(
        0, name, identity, run, model, url, None, None, NEW, None, 0, 0, now, None, 0.0, "",
        maker,
    )  # fmt: skip


def _exist(db: sqlite3.Connection) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'batches'"
    return db.execute(query).fetchone() is not None


def _owner(name: str) -> str:
    """Who holds the claims and the money of a batch."""
    return f"{_HOST}:0:{name}"


def _hand_over(db: sqlite3.Connection, batch: Placed, keys: Sequence[bytes], owner: str) -> bool:
    """Give the claims to calls to the batch; False, and nothing given, where one is not held."""
    db.execute("SAVEPOINT claims")
    moved = 0
    for some, marks in grouped(keys):
        moved += db.execute(
            "UPDATE claims SET owner = ?, until = ? WHERE identity = ? AND owner = ? "
            f"AND prompt IN ({marks})",
            (_owner(batch.name), batch.at + KEPT_S, batch.identity, owner, *some),
        ).rowcount
    if moved == len(keys):
        return True
    db.execute("ROLLBACK TO claims")
    return False


def _set_aside(db: sqlite3.Connection, batch: Placed, usd: float, lease: str | None) -> None:
    """Move the most that a batch may cost from its maker's money of the day to its own."""
    if lease is not None:
        db.execute("UPDATE spending SET usd = max(0, usd - ?) WHERE owner = ?", (usd, lease))
        db.execute("DELETE FROM spending WHERE owner = ? AND usd < 1e-12", (lease,))
    day = spending.utc_day(batch.at)
    db.execute("INSERT INTO spending VALUES (?, ?, ?)", (day, _owner(batch.name), usd))


def _end(db: sqlite3.Connection, batch: Placed, state: str) -> None:
    """End what a batch holds, within a transaction."""
    db.execute("UPDATE batches SET state = ? WHERE number = ?", (state, batch.number))
    db.execute("DELETE FROM batch_calls WHERE batch = ?", (batch.number,))
    db.execute("DELETE FROM claims WHERE owner = ?", (_owner(batch.name),))
    spending.release(db, _owner(batch.name))


def _read(db: sqlite3.Connection, where: str, *values: object) -> list[Placed]:
    rows = db.execute(f"SELECT {_COLUMNS} FROM batches WHERE {where}", values)
    return [Placed(*row) for row in rows]


def _told(facts: Facts) -> str:
    """The facts that are the same for all calls, as JSON."""
    return json.dumps(
        {
            "price": price_facts(facts.price),
            "labels": list(facts.labels),
            "judged": facts.judged,
            "longest": facts.longest,
        },
        ensure_ascii=False,
    )
