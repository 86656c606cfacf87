"""Ctrl-C: what was paid for is never paid for again. A real process, real HTTP."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.server import TestServer
from tests.test_end_to_end import said

CONFIG = """
seed = 5
max_in_flight = 8
[[models]]
name = "big"
base_url = "{url}"
reference = true
input_usd_per_mtok = 10.0
output_usd_per_mtok = 10.0
[[models]]
name = "small"
base_url = "{url}"
input_usd_per_mtok = 0.3
output_usd_per_mtok = 0.3
"""
LOST_BY_A_KILL = 2 * 8  # twice max_in_flight
QUERY = "SELECT i, smart_llm('review ' || i, 0.1, 0.95) AS a FROM range({n}) t(i) ORDER BY i"


@pytest.fixture
def server() -> Iterator[TestServer]:
    with TestServer(answer=said, latency_s=0.01) as running:
        yield running


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, server: TestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.setenv("SMARTSQL_STORE", str(tmp_path / "answers.sqlite"))
    monkeypatch.chdir(tmp_path)
    Path("smartsql.toml").write_text(CONFIG.format(url=server.base_url))


def started(n: int = 400) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "smartsql", "-csv", "-c", QUERY.format(n=n)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> int:
    process.communicate(timeout=60)
    return process.returncode


def kept() -> set[tuple[str, bytes]]:
    """Answers in the ledger, as a reader after the crash finds them."""
    if not Path("answers.sqlite").exists():
        return set()
    with sqlite3.connect("answers.sqlite") as db:
        found = set(
            db.execute(
                "SELECT model, prompt FROM answers a JOIN identities i ON i.id = a.identity"
            ).fetchall()
        )
    db.close()
    return found


def test_ctrl_c_ends_at_once_and_keeps_what_came_back(server: TestServer) -> None:
    process = started()
    while len(server.bill) < 40:
        time.sleep(0.002)
    pressed = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - pressed < 3
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert len(kept()) >= len(server.bill) - LOST_BY_A_KILL
    assert ended(started()) == 0
    assert sum(server.multiplicity().values()) - len(kept()) <= LOST_BY_A_KILL
