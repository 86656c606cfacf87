"""What is kept of prompts, and who can read it."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import smartsql
from smartsql.config import TaskSettings
from smartsql.gateway.key import Key, masked
from smartsql.gateway.openai_private import scrubbed
from smartsql.gateway.openai_wire import Failure
from tests.faults.secrets.canary import (
    CANARY,
    PROMPT,
    everything_below,
    listed,
    logged,
)
from tests.gateway.server import Fault, TestServer


def prompts_asked(server: TestServer, **settings: Any) -> Any:
    models = [
        smartsql.Model(
            name="big",
            reference=True,
            base_url=server.base_url,
            input_usd_per_mtok=10,
            output_usd_per_mtok=10,
        ),
        smartsql.Model(name="learner", kind="learned"),
    ]
    server.api_key = None
    tasks = {"tone": TaskSettings(prompt="Tone? {input}", labels=("good", "bad"))}
    con = smartsql.connect(models=models, tasks=tasks, store="kept/a.sqlite", seed=1, **settings)
    server.answer = lambda model, prompt: "good" if prompt.endswith("fine") else "bad"
    con.execute(
        "CREATE TABLE t AS SELECT ? || i || if(i % 2 = 0, ' fine', ' awful') AS review "
        "FROM range(150) r(i)",
        [PROMPT],
    )
    return con


def test_the_ledger_and_what_is_learned_hold_digests_of_prompts_only(
    server: TestServer, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    quoting = Fault("status", status=500, message=f"cannot parse '{PROMPT[:40]}...' at 41")
    server.faults = lambda call: quoting if call.serial == 3 else None
    with prompts_asked(server) as con:
        con.execute("SELECT smart_llm(review, 0.2, 0.9, task := 'tone') FROM t").fetchall()
        ledger = listed(con, "ledger")
        assert "cannot parse '[prompt]...' at 41" in ledger
        kept = everything_below(tmp_path / "kept")
    seen = kept + everything_below(tmp_path / "kept") + ledger.encode() + logged(caplog).encode()
    for part in (PROMPT, "Patient", "born 1961", "left knee"):
        assert part.encode() not in seen
    assert list((tmp_path / "kept").glob("*.learned/*"))


def test_prompts_are_kept_under_the_digests_of_attempts_where_that_is_asked_for(
    server: TestServer, tmp_path: Path
) -> None:
    with prompts_asked(server, store_prompts=True) as con:
        con.execute("SELECT smart_llm(review, 0.2, 0.9, task := 'tone') FROM t").fetchall()
        con.execute("SELECT smart_llm(review) FROM t LIMIT 2").fetchall()
    with sqlite3.connect(tmp_path / "kept" / "a.sqlite") as db:
        kept = dict(
            db.execute(
                "SELECT p.prompt, count(*) FROM attempts a "
                "JOIN prompts p ON p.digest = a.prompt GROUP BY 1"
            )
        )
    assert set(kept) >= {call.prompt for call in server.calls}
    assert f"Tone? {PROMPT}0 fine" in kept and any(p.startswith("Patient") for p in kept)


@pytest.mark.parametrize("store_prompts", [False, True])
def test_files_are_their_owners_alone_whatever_the_umask_says(
    server: TestServer, tmp_path: Path, store_prompts: bool
) -> None:
    before = os.umask(0)
    try:
        with prompts_asked(server, store_prompts=store_prompts) as con:
            con.execute("SELECT smart_llm(review, 0.2, 0.9, task := 'tone') FROM t").fetchall()
            modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "kept").rglob("*")}
    finally:
        os.umask(before)
    assert {"a.sqlite", "a.sqlite-wal", "a.sqlite-shm", "a.sqlite.learned"} <= set(modes)
    learned = [name for name in modes if name.endswith(".npz")]
    assert learned
    assert modes.pop("a.sqlite.learned") == 0o700
    assert set(modes.values()) == {0o600}
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700


def test_quotations_of_prompts_and_parts_of_keys_are_masked_in_what_endpoints_say() -> None:
    def clean(error: str, prompt: str = PROMPT) -> str:
        return scrubbed(Failure("rejected", error, False), Key.of(CANARY), prompt).error

    assert clean(f"no: {PROMPT}") == "no: [prompt]"
    assert clean(f"no: {PROMPT[5:35]}!") == "no: [prompt]!"
    assert clean(f"no: {json.dumps(PROMPT)}") == "no: [prompt]".replace("[", '"[').replace(
        "]", ']"'
    )
    assert clean(f"key {CANARY[:14]}*** is wrong") == "key [key]*** is wrong"
    assert clean("a born 1961, b") == "a born 1961, b"  # too short to be a quotation
    assert clean("x" * 900 + CANARY) == "x" * 197 + "..."
    assert clean("\x1b[2J\x07 bad \u202e name") == "␛[2J␇ bad \N{REPLACEMENT CHARACTER} name"
    assert masked("abc", "", "[m]", 3) == "abc"


@pytest.mark.parametrize("size", [10, 70_000])
def test_masking_takes_no_time_to_speak_of_even_for_a_long_prompt(
    size: int, benchmark_s: Callable[[Callable[[], object]], float]
) -> None:
    failure = Failure("rejected", "the prompt is too long " * 100, False)
    assert benchmark_s(lambda: scrubbed(failure, Key.of(CANARY), "the prompt was " * size)) < 2.0


@pytest.fixture
def benchmark_s() -> Callable[[Callable[[], object]], float]:
    def seconds(work: Callable[[], object]) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    return seconds
