"""The ledger under fire: full disks, locks, torn files. What is paid for is kept, or it is told."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

import smartsql
from smartsql.errors import LedgerError
from smartsql.ledger import Ledger, opening, sent
from tests.faults.scenes import said
from tests.faults.zygote import models
from tests.gateway.server import Call, TestServer

ROWS = 200
IN_FLIGHT = 8
QUERY = "SELECT i, smart_llm('review ' || i, 0.1, 0.95) AS a FROM range(200) t(i) ORDER BY i"


@pytest.fixture
def server() -> Iterator[TestServer]:
    with TestServer(answer=said, latency_s=0.002) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "answers.sqlite"


def opened(server: TestServer, store: Path, **settings: Any) -> Any:
    return smartsql.connect(
        config=smartsql.Settings(),
        models=models(server.base_url),
        store=str(store),
        seed=3,
        max_in_flight=IN_FLIGHT,
        **settings,
    )


def answers(store: Path) -> int:
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT count(*) FROM answers").fetchone()[0])


def full_after(server: TestServer, ledger: Ledger, calls: int) -> None:
    """From some call on the ledger has no free page more: SQLite's own error of a full disk."""

    def reply(call: Call) -> str:
        if call.serial == calls:
            with ledger._lock:
                pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
                ledger._db.execute(f"PRAGMA max_page_count = {pages}")
        return said(call.model, call.prompt) + " " * 600  # so that answers take up pages

    server.reply = reply


def with_space(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA max_page_count = 1000000000")


# --- a full disk -----------------------------------------------------------------------------


def test_when_the_disk_is_full_asking_stops_and_answers_wait_in_memory_for_space(
    server: TestServer, store: Path
) -> None:
    with opened(server, store) as con:
        ledger = con.engine.store
        full_after(server, ledger, 60)
        with pytest.raises(LedgerError) as caught:
            con.execute(QUERY).fetchall()
        message = str(caught.value)
        assert "full" in message
        assert "free some space" in message
        found = re.search(
            r"(\d+) paid answers are \(\$[\d.e-]+\) in this program's memory", message
        )
        assert found is not None, message
        waiting, kept = int(found[1]), answers(store)
        # at once: no more than what was handed over when the disk was full
        assert 0 < waiting <= 3 * 4 * IN_FLIGHT
        assert len(server.bill) == kept + waiting
        assert kept + waiting < 200
        billed = server.multiplicity()
        # without space nothing is asked again
        with pytest.raises(LedgerError, match="full"):
            con.execute(QUERY).fetchall()
        assert server.multiplicity() == billed
        with_space(ledger._db)
        assert len(con.execute(QUERY).fetchall()) == ROWS
    assert server.max_billed() == 1
    assert answers(store) == len(server.bill)


def test_answers_in_memory_are_written_when_the_connection_is_closed(
    server: TestServer, store: Path
) -> None:
    con = opened(server, store)
    ledger = con.engine.store
    full_after(server, ledger, 60)
    with pytest.raises(LedgerError, match="in this program's memory"):
        con.execute(QUERY).fetchall()
    with_space(ledger._db)
    con.close()
    assert answers(store) == len(server.bill) > 0
    with opened(server, store) as again:
        assert len(again.execute(QUERY).fetchall()) == ROWS
    assert server.max_billed() == 1


LIMITED = """
import os, resource, signal, sys
import smartsql
from tests.faults.test_ledger_faults import QUERY, opened
from smartsql.errors import LedgerError

class Server:
    base_url = sys.argv[1]

con = opened(Server, sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), hard))
try:
    con.execute(QUERY).fetchall()
except LedgerError as error:
    print(error, flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert len(con.execute(QUERY).fetchall()) == 200
con.close()
"""


@pytest.mark.parametrize("limit", [130_000, 250_000])
def test_writes_that_the_system_refuses_lose_nothing(
    server: TestServer, store: Path, limit: int
) -> None:
    """A limit of the system on file sizes, in a process of its own: its real error."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, server.base_url, str(store), str(limit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "disk I/O error" in done.stdout or "full" in done.stdout, done.stdout
    assert "run the statement again" in done.stdout
    assert server.max_billed() == 1
    assert answers(store) == len(server.bill)


def test_what_cannot_be_noted_is_not_sent(
    server: TestServer, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def broken(file: int, raw: bytes, at: int) -> int:
        if len(raw) == 8 and len(server.bill) >= 20:
            raise OSError(28, "No space left on device")
        return real(file, raw, at)

    with opened(server, store) as con:
        with monkeypatch.context() as patch:
            patch.setattr(sent.os, "pwrite", broken)
            with pytest.raises(LedgerError, match="No space left"):
                con.execute(QUERY).fetchall()
            assert len(server.bill) < 20 + 3 * IN_FLIGHT
            assert answers(store) == len(server.bill)
        assert len(con.execute(QUERY).fetchall()) == ROWS
    assert server.max_billed() == 1


# --- a lock ----------------------------------------------------------------------------------


def test_a_ledger_that_another_program_holds_is_a_clear_error_and_loses_nothing(
    server: TestServer, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "BUSY_S", 0.3)
    monkeypatch.setattr("smartsql.ledger.store.BUSY_S", 0.3)
    server.latency_s = 0.004
    with (
        opened(server, store) as con,
        closing(sqlite3.connect(store, isolation_level=None, check_same_thread=False)) as other,
    ):
        server.reply = lambda call: (
            other_holds(other, call.serial == 40) or said(call.model, call.prompt)
        )
        with pytest.raises(LedgerError) as caught:
            con.execute(QUERY).fetchall()
        assert "locked" in str(caught.value)
        assert "end that program" in str(caught.value)
        # in the time of the lock no more was asked than what was handed over before
        assert 40 <= len(server.bill) <= 41 + 3 * 4 * IN_FLIGHT
        billed = server.multiplicity()
        with pytest.raises(LedgerError, match="locked"):
            con.execute(QUERY).fetchall()
        assert server.multiplicity() == billed
        server.reply = None
        other.execute("ROLLBACK")
        assert len(con.execute(QUERY).fetchall()) == ROWS
    assert server.max_billed() == 1
    assert answers(store) == len(server.bill)


def other_holds(db: sqlite3.Connection, now: bool) -> None:
    if now:
        db.execute("BEGIN IMMEDIATE")


def test_a_lock_that_ends_in_time_is_waited_for(server: TestServer, store: Path) -> None:
    with opened(server, store) as con:
        holder = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sqlite3, sys, time\n"
                "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
                "db.execute('BEGIN IMMEDIATE')\n"
                "print('held', flush=True)\n"
                "sys.stdin.readline()\n"
                "db.execute('COMMIT')\n",
                str(store),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        server.reply = None
        started = time.monotonic()
        Timer(0.5, lambda: holder.communicate("\n")).start()
        assert len(con.execute(QUERY).fetchall()) == ROWS
        assert time.monotonic() - started > 0.4
        holder.wait(10)
    assert server.max_billed() == 1


def test_a_ledger_that_is_held_cannot_be_opened_and_says_so(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ledger(store).close()
    monkeypatch.setattr(opening, "BUSY_S", 0.2)
    with closing(sqlite3.connect(store, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="Another program has held it"):
            Ledger(store)
        other.execute("ROLLBACK")
    Ledger(store).close()
