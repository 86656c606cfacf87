"""A torn ledger is recovered, or refused with a way out that works; never silently emptied."""

from __future__ import annotations

import os
import random
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from smartsql.errors import LedgerError
from smartsql.gateway import Attempt
from smartsql.ledger import Ledger
from smartsql.population import digest
from tests.faults.scenes import ROOT

PAGE = 4096
N = 3000
KEYS = [digest(f"prompt {i}") for i in range(N)]
TEXTS = {key: f"answer {i}" for i, key in enumerate(KEYS)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with answers, failures and runs, closed in order."""
    path = tmp_path_factory.mktemp("whole") / "answers.sqlite"
    ledger = Ledger(path)
    identity = ledger.identity("m", "openai:m")
    run = ledger.begin_run(b"statement")
    for start in range(0, N, 500):
        some = KEYS[start : start + 500]
        ok = [(key, Attempt(0, True, "ok", TEXTS[key], 0.5, 9, 2, 0.25, 0.1)) for key in some]
        timeouts = [(key, Attempt(0, False, "timeout", cost_usd=0.5)) for key in some[:20]]
        ledger.record(run, identity, [*ok, *timeouts])
    ledger.end_run(run, "{}")
    ledger.close()
    return path


@pytest.fixture
def torn(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be torn."""
    path = tmp_path / "store of mine.sqlite"
    shutil.copyfile(whole, path)
    return path


def read(path: Path) -> dict[bytes, str]:
    """All answers of a ledger, read by their keys."""
    ledger = Ledger(path)
    try:
        found = ledger.lookup(ledger.identity("m", "openai:m"), KEYS)
        return {key: str(stored.text) for key, stored in found.items()}
    finally:
        ledger.close()


def refused(path: Path) -> str:
    """With which words a ledger is refused; it is left as it was."""
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(LedgerError) as caught:
        read(path)
    assert (path.read_bytes() if path.exists() else None) == before
    return str(caught.value)


def follow(message: str, command: str) -> None:
    """Execute the command that a message advises."""
    found = re.search(rf"{command} .*?(?=  |\)|, or)", message)
    assert found is not None, message
    arguments = shlex.split(found[0])
    if arguments[0] == "smartsql":
        arguments = [sys.executable, "-m", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr


def rescued(path: Path) -> dict[bytes, str]:
    """The answers after following the advice: rescue, and put the new file in the place."""
    follow(refused(path), "smartsql rescue")
    new = Path(f"{path}.rescued")
    assert new.stat().st_mode & 0o777 == 0o600
    new.replace(path)
    found = read(path)
    assert all(TEXTS[key] == text for key, text in found.items())
    ledger = Ledger(path)
    ledger.record(
        2, ledger.identity("m", "openai:m"), [(digest("new"), Attempt(0, True, "ok", "x"))]
    )
    ledger.close()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return found


def root_of(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as db:
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        return int(db.execute(query, (table,)).fetchone()[0])


def test_a_truncated_ledger_is_refused_and_what_is_left_of_it_is_rescued(torn: Path) -> None:
    size = torn.stat().st_size
    os.truncate(torn, int(size * 0.6))
    found = rescued(torn)
    assert 0.3 * N < len(found) < N


def test_a_page_of_garbage_is_told_and_all_other_answers_are_rescued(torn: Path) -> None:
    root = root_of(torn, "answers")
    raw = bytearray(torn.read_bytes())
    pages = [n for n in range(1, len(raw) // PAGE) if raw[n * PAGE] == 10 and n + 1 != root]
    bad = pages[len(pages) // 2]
    raw[bad * PAGE : (bad + 1) * PAGE] = random.Random(1).randbytes(PAGE)
    torn.write_bytes(raw)
    found = rescued(torn)
    assert N - 60 < len(found) < N


def test_a_page_within_the_tree_costs_no_more_than_what_hangs_on_it(torn: Path) -> None:
    with closing(sqlite3.connect(torn)) as db:
        root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'failures'").fetchone()[
            0
        ]
    raw = bytearray(torn.read_bytes())
    raw[(root - 1) * PAGE : root * PAGE] = bytes(PAGE)
    torn.write_bytes(raw)
    with pytest.raises(LedgerError, match="smartsql rescue"):
        list(Ledger(torn).attempts())
    new = torn.with_suffix(".new")
    follow(f"smartsql rescue {shlex.quote(str(torn))} {shlex.quote(str(new))}  ", "smartsql rescue")
    assert len(read(new)) == N


@pytest.mark.parametrize("n_bytes", [16, 100, PAGE])
def test_a_garbage_header_is_refused_and_everything_is_rescued(torn: Path, n_bytes: int) -> None:
    raw = bytearray(torn.read_bytes())
    raw[:n_bytes] = random.Random(n_bytes).randbytes(n_bytes)
    torn.write_bytes(raw)
    assert len(rescued(torn)) == N


def test_an_empty_file_is_refused_until_it_is_deleted(torn: Path) -> None:
    torn.write_bytes(b"")
    follow(refused(torn), "rm")
    assert read(torn) == {}


def test_a_database_without_tables_is_not_taken_for_a_new_ledger(torn: Path) -> None:
    torn.unlink()
    with closing(sqlite3.connect(torn)) as db:
        db.execute("PRAGMA journal_mode = WAL")
    assert "empty" in refused(torn)


KILLED = """
import os, sys
from smartsql.gateway import Attempt
from smartsql.ledger import Ledger
from smartsql.population import digest
ledger = Ledger(sys.argv[1])
identity = ledger.identity("m", "openai:m")
for start in range(2000, 3000, 10):
    some = range(start, start + 10)
    ledger.record(1, identity, [
        (digest(f"prompt {i}"), Attempt(0, True, "ok", f"answer {i}", 0.5, 9, 2, 0.25, 0.1))
        for i in some
    ])
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A ledger whose process was killed: its latest answers are in the log alone."""
    path = tmp_path / "answers.sqlite"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, env=env)
    assert done.returncode == -signal.SIGKILL
    return path


def test_after_a_kill_the_log_is_read_without_being_asked_for(killed: Path) -> None:
    assert len(read(killed)) == 1000


def test_a_ledger_whose_log_is_gone_is_refused_until_that_is_accepted(killed: Path) -> None:
    log = Path(f"{killed}-wal")
    kept = log.read_bytes()
    log.unlink()
    message = refused(killed)
    assert str(log) in message
    log.write_bytes(kept)  # one way out: it is found again
    assert len(read(killed)) == 1000


def test_without_its_log_a_ledger_goes_on_from_what_it_holds(killed: Path) -> None:
    Path(f"{killed}-wal").unlink()
    follow(refused(killed), "rm")
    assert set(read(killed).items()) <= set(TEXTS.items())


def test_a_log_without_its_ledger_is_no_new_ledger(killed: Path) -> None:
    killed.unlink()
    message = refused(killed)
    follow(message, "rm")
    assert read(killed) == {}


def test_a_log_that_was_cut_off_loses_its_last_answers_only(killed: Path) -> None:
    log = Path(f"{killed}-wal")
    frames = (log.stat().st_size - 32) // (PAGE + 24)
    os.truncate(log, 32 + (frames // 2) * (PAGE + 24) + 1000)
    found = read(killed)
    assert 0 < len(found) < 1000
    assert set(found) == set(KEYS[2000 : 2000 + len(found)])


@pytest.mark.parametrize("seed", range(24))
def test_however_it_is_torn_nothing_is_missing_without_an_error(torn: Path, seed: int) -> None:
    """Whole pages of garbage or zeros anywhere, or an end that is missing."""
    draws = random.Random(seed)
    raw = bytearray(torn.read_bytes())
    pages = len(raw) // PAGE
    if seed % 3 == 0:
        raw = raw[: draws.randrange(1, len(raw))]
    else:
        for _ in range(draws.choice((1, 3))):
            page = draws.randrange(pages)
            filled = draws.randbytes(PAGE) if seed % 3 == 1 else bytes(PAGE)
            raw[page * PAGE : (page + 1) * PAGE] = filled
    torn.write_bytes(raw)
    try:
        found = read(torn)
    except LedgerError as error:
        assert "smartsql rescue" in str(error)
        assert torn.read_bytes() == raw
    else:
        assert found == TEXTS
