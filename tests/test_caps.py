"""Caps on money: a statement's, a session's, a day's, and several processes under one of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import smartsql
from smartsql.asking import budget
from smartsql.asking.budget import Budget, DailyBudget, Gate
from smartsql.errors import BudgetError
from smartsql.ledger import Ledger, spending
from tests.gateway.server import Answer, TestServer

USD_PER_MTOK = 1000.0
WORKER = """
import json, sys
import smartsql
base_url, store, first, cap = sys.argv[1:]
model = smartsql.Model(
    name="big", reference=True, base_url=base_url, input_usd_per_mtok=1000.0,
    output_usd_per_mtok=1000.0, parameters={"max_completion_tokens": 4},
)
settings = smartsql.Settings(store=store, models=(model,), daily_budget_usd=float(cap), seed=1)
with smartsql.connect(config=settings) as con:
    query = f"SELECT smart_llm('row ' || i, 0, 0.95) FROM range({first}, {first} + 250) t(i)"
    try:
        con.execute(query).fetchall()
        print(json.dumps({"error": None}))
    except smartsql.errors.BudgetError as error:
        print(json.dumps({"error": str(error), "cap": error.cap}))
"""


def billed_usd(server: TestServer) -> float:
    return sum(server.billed_tokens("big")) * USD_PER_MTOK / 1e6


def opened(server: TestServer, store: Path, **settings: Any) -> Any:
    model = smartsql.Model(
        name="big",
        reference=True,
        base_url=server.base_url,
        input_usd_per_mtok=USD_PER_MTOK,
        output_usd_per_mtok=USD_PER_MTOK,
        parameters={"max_completion_tokens": 4},
    )
    return smartsql.connect(
        config=smartsql.Settings(store=str(store), models=(model,), seed=1, **settings)
    )


def asking(first: int, count: int) -> str:
    return f"SELECT smart_llm('row ' || i, 0, 0.95) FROM range({first}, {first + count}) t(i)"


def test_two_processes_never_exceed_the_budget_of_a_day(tmp_path: Path) -> None:
    store = tmp_path / "answers.sqlite"
    Ledger(store).close()
    with TestServer(latency_s=0.01) as server:
        cap = 2.0
        arguments = [server.base_url, str(store)]
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, *arguments, str(first), str(cap)],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.getcwd()},
            )
            for first in (0, 1000)
        ]
        outputs = [worker.communicate(timeout=120)[0] for worker in workers]
        # DuckDB takes `python -c` for a person, and draws its progress bar
        said = [json.loads(output[output.index("{") :]) for output in outputs]
        spent = billed_usd(server)
        assert {each.get("cap") for each in said} == {"day"}
        assert all("daily budget of $2 reached" in each["error"] for each in said)
        assert 0.85 * cap < spent <= cap
        assert server.max_billed() == 1
        # more money, and each goes on from where it stopped
        for first in (0, 1000):
            with opened(server, store, daily_budget_usd=100.0) as con:
                assert len(con.execute(asking(first, 250)).fetchall()) == 250
        assert server.max_billed() == 1
        assert len(server.bill) == 500


def test_an_endpoint_that_keeps_to_no_limit_surprises_once(tmp_path: Path) -> None:
    usage = (10, 500)  # the limit is 4
    with TestServer(lambda model, prompt: Answer("long", usage=usage), latency_s=0.02) as server:
        call = sum(usage) * USD_PER_MTOK / 1e6
        with opened(server, tmp_path / "a.sqlite", session_budget_usd=10 * call) as con:
            con.execute(asking(0, 1)).fetchall()
            with pytest.raises(BudgetError) as caught:
                con.execute(asking(1, 100)).fetchall()
        assert server.most_in_flight > 4
        assert billed_usd(server) == pytest.approx(caught.value.spent_usd)
        assert 7 * call < billed_usd(server) <= 10 * call


def test_a_process_that_is_killed_never_lets_the_next_ones_pass_the_cap(tmp_path: Path) -> None:
    store = tmp_path / "answers.sqlite"
    Ledger(store).close()
    with TestServer(latency_s=0.03) as server:
        for first, stop in ((0, 20), (1000, 40), (2000, None)):
            worker = subprocess.Popen(
                [sys.executable, "-c", WORKER, server.base_url, str(store), str(first), "6"],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.getcwd()},
            )
            deadline = time.monotonic() + 60
            while stop and len(server.bill) < stop and time.monotonic() < deadline:
                if worker.poll() is not None:
                    break
                time.sleep(0.002)
            if stop:
                worker.kill()
            worker.communicate(timeout=60)
        assert 0 < billed_usd(server) <= 6.0


def test_a_session_stops_at_its_budget_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with TestServer() as server:
        with opened(server, tmp_path / "a.sqlite", session_budget_usd=1.0) as con:
            con.execute(asking(0, 30)).fetchall()
            first = billed_usd(server)
            with pytest.raises(BudgetError, match="session budget of \\$1 reached") as caught:
                con.execute(asking(0, 300)).fetchall()
            assert (caught.value.cap, caught.value.budget_usd) == ("session", 1.0)
            assert first < caught.value.spent_usd <= 1.0
            assert caught.value.spent_usd == pytest.approx(billed_usd(server))
            with pytest.raises(BudgetError, match="in this session"):
                con.execute(asking(500, 300)).fetchall()
        with opened(server, tmp_path / "a.sqlite", session_budget_usd=50.0) as con:
            assert len(con.execute(asking(0, 300)).fetchall()) == 300
        assert server.max_billed() == 1


def test_rows_beyond_the_budget_of_a_day_are_null_where_that_is_asked_for(tmp_path: Path) -> None:
    with TestServer() as server:
        caps = {"daily_budget_usd": 1.0, "on_budget": "null"}
        with opened(server, tmp_path / "a.sqlite", **caps) as con:
            answers = [a for (a,) in con.execute(asking(0, 300)).fetchall()]
            assert 0 < sum(a is not None for a in answers) < 300
            report = con.reports[-1]
            assert report.error_rows == answers.count(None)
            assert "daily budget of $1 reached" in report.notes[-1]
            assert "saved" not in report.bill()
            assert "spent until the budget was used up" in report.bill()
            assert f"{report.error_rows} rows have no answer" in report.bill()
            assert "saved" not in dict(report.lines())["spend"]
        assert billed_usd(server) <= 1.0


def test_what_was_spent_today_without_a_cap_counts_against_a_later_one(tmp_path: Path) -> None:
    with TestServer() as server:
        with opened(server, tmp_path / "a.sqlite") as con:
            con.execute(asking(0, 100)).fetchall()
        spent = billed_usd(server)
        with (
            opened(server, tmp_path / "a.sqlite", daily_budget_usd=spent) as con,
            pytest.raises(BudgetError, match=spending.utc_day()) as caught,
        ):
            con.execute(asking(100, 10)).fetchall()
        assert caught.value.spent_usd == pytest.approx(spent)
        assert len(server.bill) == 100


def test_the_day_ends_at_midnight_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    assert spending.utc_day(0.0) == "1970-01-01"
    assert spending.utc_day(86_399.9) == "1970-01-01"
    assert spending.utc_day(86_400.0) == "1970-01-02"
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        assert spending.utc_day(86_399.9) == "1970-01-01"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_new_day_has_a_budget_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger.in_memory()
    mine = DailyBudget(ledger, 10.0)
    monkeypatch.setattr(budget, "utc_day", lambda: "2030-01-01")
    assert mine.reserve(9.0) is None
    refusal = mine.reserve(2.0)
    assert refusal is not None
    assert (refusal.cap, refusal.day, refusal.wanted_usd) == ("day", "2030-01-01", 2.0)
    monkeypatch.setattr(budget, "utc_day", lambda: "2030-01-02")
    assert mine.reserve(1.0) is None
    # what is in flight over midnight may be recorded on the new day
    assert mine.reserve(1.0) is not None


def test_what_one_process_has_set_aside_is_kept_from_the_others_until_it_is_given_back() -> None:
    ledger = Ledger.in_memory()
    mine, theirs = DailyBudget(ledger, 10.0), DailyBudget(ledger, 10.0)
    assert mine.reserve(8.0) is None
    refusal = theirs.reserve(3.0)
    assert refusal is not None
    assert refusal.held_usd == pytest.approx(8.0)
    assert "and $8 set aside by other processes" in str(refusal.error(5))
    mine.settle(8.0, 0.0)
    assert theirs.reserve(3.0) is not None  # still taken
    mine.give_back()
    assert theirs.reserve(3.0) is None
    assert mine.reserve(7.5) is not None
    assert mine.reserve(6.9) is None


def test_threads_of_one_process_never_reserve_more_than_a_day_has() -> None:
    ledger = Ledger.in_memory()
    mine = [DailyBudget(ledger, 1.0) for _ in range(4)]
    granted: list[float] = []

    def reserve(daily: DailyBudget) -> None:
        granted.extend(0.01 for _ in range(100) if daily.reserve(0.01) is None)

    threads = [Thread(target=reserve, args=(daily,)) for daily in mine]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.9 < sum(granted) <= 1.0 + 1e-9


def test_a_call_that_one_cap_refuses_is_set_aside_with_none() -> None:
    statement, session = Budget(5.0), Budget(1.0, "session")
    gate = Gate([statement, session])
    assert gate.reserve(0.8)
    assert not gate.reserve(0.8)
    assert gate.refusal is not None
    assert gate.refusal.cap == "session"
    gate.settle(0.8, 0.5)
    assert (statement.spent_usd, session.spent_usd) == (0.5, 0.5)
    assert statement.reserve(4.5) is None
    gate.halt()
    assert not gate.reserve(0.0)
