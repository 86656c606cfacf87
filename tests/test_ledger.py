"""The ledger keeps every attempt and every answer."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from smartsql.errors import LedgerError
from smartsql.features import features
from smartsql.gateway import Attempt
from smartsql.ledger import Ledger, Statement
from smartsql.ledger.owners import new_owner
from smartsql.population import digest

A, B, C = digest("a"), digest("b"), digest("c")


def ok(text: str = "yes", usd: float = 0.5) -> Attempt:
    return Attempt(0, True, "ok", text, 0.9, 10, 2, usd, 0.1, "served")


def test_answers_are_found_again_by_another_connection(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "l.sqlite")
    identity = first.identity("m", "openai:m")
    first.record(1, identity, [(A, ok()), (B, Attempt(0, True, "empty", cost_usd=0.25))])
    other = Ledger(tmp_path / "l.sqlite")
    found = other.lookup(other.identity("m", "openai:m"), [A, B, C])
    assert {k: (s.status, s.text, s.cost_usd) for k, s in found.items()} == {
        A: ("ok", "yes", 0.5),
        B: ("empty", None, 0.25),
    }
    assert other.lookup(other.identity("m", "another identity"), [A]) == {}


def test_an_ok_answer_is_never_replaced_and_nothing_paid_is_forgotten() -> None:
    ledger = Ledger.in_memory()
    identity = ledger.identity("m", "i")
    ledger.record(1, identity, [(A, Attempt(0, True, "cut", cost_usd=0.1)), (B, ok("first"))])
    ledger.record(2, identity, [(A, ok("full")), (B, ok("second")), (C, ok("new"))])
    found = ledger.lookup(identity, [A, B, C])
    assert [found[k].text for k in (A, B, C)] == ["full", "first", "new"]
    assert ledger.spend_of_run(1)[:2] == (2, pytest.approx(0.6))
    assert ledger.spend_of_run(2)[:2] == (3, pytest.approx(1.5))
    rows = [row for group in ledger.attempts() for row in group]
    assert len(rows) == 5
    assert ledger.failed(1, identity) == {A: (0.1, 0.0)}  # run 1 saw no full answer


def test_ctrl_c_between_a_commit_and_the_news_of_it_counts_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path / "l.sqlite")
    identity = ledger.identity("m", "i")
    transaction = ledger._transaction

    @contextmanager
    def interrupted() -> Iterator[sqlite3.Connection]:
        with transaction() as db:
            yield db
        raise KeyboardInterrupt

    failure = Attempt(0, True, "timeout", cost_usd=0.25)
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_transaction", interrupted)
        for attempts in ([(A, ok("first")), (B, failure)], [(C, failure)]):
            with pytest.raises(KeyboardInterrupt):
                ledger.record(1, identity, attempts)
    ledger.record(1, identity, [(C, ok("third"))])
    ledger.close()
    with closing(Ledger(tmp_path / "l.sqlite")) as again:
        rows = [row for group in again.attempts() for row in group]
        assert sorted(row[4] for row in rows) == ["ok", "ok", "timeout", "timeout"]
        assert again.spend_of_run(1)[1] == pytest.approx(1.5)


def test_failed_attempts_are_kept_with_their_cost() -> None:
    ledger = Ledger.in_memory()
    identity = ledger.identity("m", "i")
    ledger.record(
        7,
        identity,
        [
            (A, Attempt(0, False, "timeout", cost_usd=0.2, error="no answer in 60 s")),
            (A, Attempt(0, True, "timeout", cost_usd=0.2, seconds=1.5)),
        ],
    )
    assert ledger.lookup(identity, [A]) == {}
    assert ledger.failed(7, identity) == {A: (0.2, 1.5)}
    assert ledger.spend_of_run(7)[:2] == (2, pytest.approx(0.4))
    assert ledger.totals() == [("m", 2, 0, 0, pytest.approx(0.4), 1.5)]


def test_a_claim_belongs_to_one_owner_until_it_is_released() -> None:
    ledger = Ledger.in_memory()
    i = ledger.identity("m", "i")
    assert ledger.claim(i, [A, B], "one") == set()
    assert ledger.claim(i, [A, B, C], "two") == {A, B}
    assert ledger.claim(i, [A], "one") == set()
    ledger.release("one")
    assert ledger.claim(i, [B, C], "two") == set()
    assert ledger.claim(ledger.identity("m", "other"), [B], "one") == set()


def test_a_lease_of_the_dead_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger.in_memory()
    i = ledger.identity("m", "i")
    monkeypatch.setattr("smartsql.ledger.claims.LEASE_S", -1.0)
    ledger.claim(i, [A], "dead")
    monkeypatch.setattr("smartsql.ledger.claims.LEASE_S", 60.0)
    assert ledger.claim(i, [A], "alive") == set()
    ledger.renew("alive")
    assert ledger.claim(i, [A], "third") == {A}


def test_claims_of_a_process_that_is_gone_end_at_once() -> None:
    ledger = Ledger.in_memory()
    i = ledger.identity("m", "i")
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    dead = new_owner().replace(f":{os.getpid()}:", f":{child.pid}:")
    ledger.claim(i, [A], dead)
    ledger.claim(i, [B], "elsewhere:1:x")
    ledger.claim(i, [C], new_owner())
    ledger.reap()
    assert ledger.claim(i, [A, B, C], "two") == {B, C}


def test_the_first_seed_of_a_statement_stays(tmp_path: Path) -> None:
    weights = np.array([1, 3], dtype=np.int64)
    one = Ledger(tmp_path / "l.sqlite")
    assert one.statement(b"k", Statement(5, A + B, weights, (1.0, 0.5))).seed == 5
    again = Ledger(tmp_path / "l.sqlite").statement(b"k", Statement(6, A + B, weights, (2.0,)))
    assert (again.seed, again.prompts, again.weights.tolist()) == (5, A + B, [1, 3])
    assert again.expected_costs == (1.0, 0.5)
    run = one.begin_run(b"k")
    assert not one.has_report(b"k")
    one.end_run(run, "{}")
    assert one.has_report(b"k")
    assert one.find_statement(b"other") is None


def test_the_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "l.sqlite"
    Ledger(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_no_ledger_is_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but something dear to its owner" * 40)
    with pytest.raises(LedgerError, match="SMARTSQL_STORE"):
        Ledger(text)
    assert text.read_text().startswith("not a database")
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    with pytest.raises(LedgerError, match="not a ledger of this version"):
        Ledger(other)


FIRST_SCHEMA = """
CREATE TABLE identities (id INTEGER PRIMARY KEY, model TEXT NOT NULL,
                         identity TEXT NOT NULL UNIQUE);
CREATE TABLE answers (identity INTEGER NOT NULL, prompt BLOB NOT NULL, run INTEGER NOT NULL,
                      at REAL NOT NULL, status TEXT NOT NULL, text TEXT, confidence REAL,
                      prompt_tokens INTEGER, completion_tokens INTEGER, cost_usd REAL NOT NULL,
                      seconds REAL NOT NULL, served_by TEXT,
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
                         weights BLOB NOT NULL, expected_costs TEXT NOT NULL);
CREATE TABLE runs (id INTEGER PRIMARY KEY, statement BLOB NOT NULL, at REAL NOT NULL, report TEXT);
INSERT INTO identities VALUES (1, 'm', 'i');
INSERT INTO answers VALUES (1, x'{a}', 1, 0.0, 'ok', 'yes', 0.9, 10, 2, 0.5, 0.1, 'served');
INSERT INTO answers VALUES (1, x'{b}', 1, 0.0, 'cut', NULL, NULL, 10, 2, 0.5, 0.1, 'served');
INSERT INTO statements VALUES (x'00', 7, x'{a}', x'0100000000000000', '[1.0, 0.5]');
PRAGMA user_version = 1;
"""


def test_a_ledger_of_the_first_version_is_taken_over_with_all_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    with sqlite3.connect(path) as db:
        db.executescript(FIRST_SCHEMA.format(a=A.hex(), b=B.hex()))
    db.close()
    ledger = Ledger(path)
    identity = ledger.identity("m", "i")
    found = ledger.lookup(identity, [A, B])
    assert (found[A].text, found[A].confidence, found[A].scores) == ("yes", 0.9, None)
    statement = ledger.find_statement(b"\x00")
    assert statement is not None
    assert (statement.seed, statement.features) == (7, None)
    again = Attempt(0, True, "ok", "full", 0.5, cost_usd=0.25, scores={"full": 0.75, "é": 0.25})
    ledger.record(2, identity, [(B, again)])
    assert ledger.lookup(identity, [B])[B].scores == {"full": 0.75, "é": 0.25}
    assert ledger.spend_of_run(1)[0] + ledger.spend_of_run(2)[0] == 3  # what was cut stays paid
    ledger.close()
    assert Ledger(path).lookup(identity, [B])[B].text == "full"  # opened again as it is now


def test_a_ledger_of_a_later_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite"
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(LedgerError, match="found 99"):
        Ledger(path)


def test_features_and_scores_are_kept_with_statements_and_answers(tmp_path: Path) -> None:
    told = features(["one", "Two words, 3 MARKS!", ""])
    weights = np.array([1, 3, 2], dtype=np.int64)
    one = Ledger(tmp_path / "l.sqlite")
    one.statement(b"k", Statement(5, A + B + C, weights, (1.0,), told))
    other = Ledger(tmp_path / "l.sqlite").statement(b"k", Statement(6, b"", weights, ()))
    assert other.features is not None
    assert other.features.names == told.names
    np.testing.assert_array_equal(other.features.values, told.values)
    assert other.features.values.dtype == np.uint8


def test_a_store_in_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot open the store"):
        Ledger(tmp_path / "file" / "l.sqlite")


def test_recorded_answers_survive_a_kill(tmp_path: Path) -> None:
    """A process that dies right after `record` returned loses nothing."""
    script = (
        "import os, sys\n"
        "from smartsql.gateway import Attempt\n"
        "from smartsql.ledger import Ledger\n"
        "from smartsql.population import digest\n"
        "ledger = Ledger(sys.argv[1])\n"
        "i = ledger.identity('m', 'i')\n"
        "for n in range(50):\n"
        "    ledger.record(1, i, [(digest(str(n)), Attempt(0, True, 'ok', str(n)))])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "l.sqlite"
    env = {**os.environ}
    died = subprocess.run([sys.executable, "-c", script, str(path)], check=False, env=env)
    assert died.returncode == -9
    ledger = Ledger(path)
    found = ledger.lookup(ledger.identity("m", "i"), [digest(str(n)) for n in range(50)])
    assert len(found) == 50


def test_processes_that_open_one_new_ledger_together_all_get_it(tmp_path: Path) -> None:
    """The change of a new file to WAL mode is a lock that SQLite refuses instead of waiting."""
    script = (
        "import sys\n"
        "from smartsql.ledger import Ledger\n"
        "print('ready', flush=True)\n"
        "for path in sys.stdin:\n"
        "    Ledger(path.strip()).close()\n"
        "    print('opened', flush=True)\n"
    )
    pipe = subprocess.PIPE
    openers = [
        subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True)
        for _ in range(4)
    ]
    for step, said in enumerate(["ready\n"] + ["opened\n"] * 60):
        for opener in openers:
            assert opener.stdout is not None
            assert opener.stdout.readline() == said
        for opener in openers:
            assert opener.stdin is not None
            opener.stdin.write(f"{tmp_path / str(step)}.sqlite\n")
            opener.stdin.flush()
    for opener in openers:
        opener.communicate(timeout=60)
        assert opener.returncode == 0


def test_a_second_connection_does_not_end_the_locks_of_the_first(tmp_path: Path) -> None:
    """Closing any descriptor of a file ends the locks that its process holds on it."""
    path = tmp_path / "l.sqlite"
    first = Ledger(path)
    with first._transaction():
        second = sqlite3.connect(path, timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            second.execute("BEGIN IMMEDIATE")
    second.close()
    Ledger(path).close()
    other = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sqlite3, sys\n"
            "db = sqlite3.connect(sys.argv[1], timeout=0)\n"
            "db.execute('PRAGMA locking_mode = EXCLUSIVE')\n"
            "db.execute('BEGIN IMMEDIATE')\n",
            str(path),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "database is locked" in other.stderr
    first.close()
