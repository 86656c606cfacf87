"""Limits of endpoints: places, requests and tokens a minute, and endpoints that hang."""

from __future__ import annotations

import asyncio
import math
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Event

import pytest

import smartsql
from smartsql.gateway import Attempts, pace
from smartsql.gateway.limits import Slots
from smartsql.gateway.loop import shared_loop
from smartsql.gateway.pace import NONE, Change, Ended, Limits, OwnCounter, Pace, Permits
from smartsql.gateway.retry import RetryPolicy
from smartsql.ledger import Ledger
from smartsql.ledger.pace import SharedCounter
from tests.gateway.asking import ask, backend_for, collect, requests_for
from tests.gateway.crowd import crowd
from tests.gateway.server import Answer, Call, Minutes, TestServer

MINUTE_S = 1.5
"""Of the tests: what takes a minute elsewhere takes so long here."""


@pytest.fixture
def server() -> Iterator[TestServer]:
    with TestServer() as running:
        yield running


@pytest.fixture
def _short_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "MINUTE_S", MINUTE_S)


# --- places -----------------------------------------------------------------------------------


@pytest.mark.parametrize("configured", [64, 256])
@pytest.mark.parametrize(("latency_s", "refusal_s"), [(0.05, 0.002), (0.05, 0.05), (2.0, 0.01)])
def test_an_endpoint_with_40_places_is_used_and_hardly_ever_refuses(
    configured: int, latency_s: float, refusal_s: float
) -> None:
    seen = crowd(configured, lambda at: 40, 3000, latency_s=latency_s, refusal_s=refusal_s)
    assert seen.used >= 0.9
    assert seen.refused < 0.02


@pytest.mark.parametrize("places", [20, 60, 64, 100, 200])
def test_so_is_one_with_more_or_fewer(places: int) -> None:
    seen = crowd(256, lambda at: places, 6000)
    assert seen.used >= 0.85
    assert seen.refused < 0.02


@pytest.mark.parametrize(("share", "places"), [(0.01, 128), (0.05, 128), (0.15, 64)])
def test_refusals_at_random_do_not_close_the_places(share: float, places: int) -> None:
    seen = [crowd(256, lambda at: 10**6, 8000, at_random=share, seed=i) for i in range(5)]
    assert all(one.refused < share + 0.02 for one in seen)
    assert sum(one.mean_places for one in seen) / 5 > places


def test_places_follow_an_endpoint_that_changes() -> None:
    assert 18 <= crowd(256, lambda at: 40 if at < 3 else 20, 6000).places <= 21
    wider = crowd(256, lambda at: 40 if at < 3 else 200, 20_000)
    assert wider.places >= 180 and wider.refused < 0.02


@pytest.mark.parametrize("configured", [64, 256])
def test_a_real_server_with_40_places_refuses_few_calls(configured: int) -> None:
    """Fewer than 2 % where nothing else runs (`benchmarks/throughput.py`); bursts add to that."""
    with TestServer(slots=40, latency_s=0.05) as server:
        backend = backend_for(server.base_url, slots=Slots(configured))
        attempts = ask(backend, [f"p{i}" for i in range(2000)], timeout_s=60)
        backend.close()
    assert {tried[-1].status for tried in attempts.values()} == {"ok"}
    assert server.rejected < 0.1 * len(server.calls)
    assert server.most_in_flight <= 40
    assert server.max_billed() == 1


# --- requests and tokens a minute ---------------------------------------------------------------


def uneven(call: Call) -> float:
    """Seconds that a call takes: up to a tenth of a minute, in no order."""
    return random.Random(call.prompt).uniform(0.0, 0.1) * MINUTE_S


@pytest.mark.usefixtures("_short_minutes")
def test_requests_a_minute_are_kept_to_the_last_one_and_used() -> None:
    limits = Minutes(requests=300, minute_s=MINUTE_S)
    with TestServer(latency_s=uneven, minutes=limits) as server:
        backend = backend_for(server.base_url, requests_per_minute=300, slots=Slots(64))
        began = time.monotonic()
        attempts = ask(backend, [f"p{i}" for i in range(900)], timeout_s=60)
        minutes = (time.monotonic() - began) / MINUTE_S
        backend.close()
    assert {tried[-1].status for tried in attempts.values()} == {"ok"}
    assert limits.violations == []
    assert 250 <= limits.arrived["m"].most <= 300
    assert 2.0 <= minutes < 6.0


@pytest.mark.usefixtures("_short_minutes")
def test_tokens_a_minute_are_kept_to_the_last_one_and_used() -> None:
    limits = Minutes(tokens=30_000, minute_s=MINUTE_S)
    answers = lambda model, prompt: Answer("ok", usage=(random.Random(prompt).randint(20, 90), 8))  # noqa: E731
    with TestServer(answers, latency_s=uneven, minutes=limits) as server:
        backend = backend_for(server.base_url, tokens_per_minute=30_000, slots=Slots(32))
        attempts = ask(backend, ["x" * 80 + str(i) for i in range(1200)], timeout_s=60)
        backend.close()
        assert sum(server.billed_tokens("m")) > 2 * 30_000
    assert {tried[-1].status for tried in attempts.values()} == {"ok"}
    assert limits.violations == []
    assert limits.billed["m"].most > 0.7 * 30_000


def test_an_endpoint_that_enforces_its_minute_is_not_hammered() -> None:
    """Without limits of our own: it refuses, says when to come back, and all is answered."""
    limits = Minutes(requests=200, minute_s=MINUTE_S, enforced=True)
    policy = RetryPolicy(base_s=0.05, longest_s=0.5, limit_patience_s=30.0)
    with TestServer(minutes=limits, latency_s=0.01) as server:
        backend = backend_for(server.base_url, slots=Slots(64), retry=policy)
        attempts = ask(backend, [f"p{i}" for i in range(500)], timeout_s=60)
        backend.close()
    assert {tried[-1].status for tried in attempts.values()} == {"ok"}
    assert server.max_billed() == 1
    assert len(server.calls) < 3 * 500


ASKS = """
import sys
from smartsql.gateway import pace
pace.MINUTE_S = float(sys.argv[5])
from smartsql.gateway.limits import Slots
from smartsql.ledger import Ledger
from smartsql.ledger.pace import SharedCounter
from tests.gateway.asking import ask, backend_for
url, store, name, n = sys.argv[1:5]
limit = {"requests_per_minute": 300, "tokens_per_minute": 6_000}
backend = backend_for(url, slots=Slots(32), **limit)
ledger = Ledger(store)
backend.count_with(lambda lane: SharedCounter(ledger.path, lane))
attempts = ask(backend, [f"{name} {i}" for i in range(int(n))], timeout_s=60)
assert {tried[-1].status for tried in attempts.values()} == {"ok"}
backend.close()
"""


def asking(server: TestServer, store: Path, name: str, n: int) -> subprocess.Popen[bytes]:
    arguments = [server.base_url, str(store), name, str(n), str(MINUTE_S)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    return subprocess.Popen([sys.executable, "-c", ASKS, *arguments], env=environment)


def test_processes_that_share_a_ledger_keep_a_limit_together(tmp_path: Path) -> None:
    limits = Minutes(requests=300, tokens=6_000, minute_s=MINUTE_S)
    with TestServer(
        lambda model, prompt: Answer("ok", usage=(14, 2)), latency_s=0.05, minutes=limits
    ) as server:
        processes = [asking(server, tmp_path / "a.sqlite", f"p{k}", 250) for k in range(3)]
        victim = asking(server, tmp_path / "a.sqlite", "victim", 2000)
        while not any(call.prompt.startswith("victim") for call in server.calls):
            assert victim.poll() is None
            time.sleep(0.01)
        victim.kill()  # what it held counts until its minute is over
        victim.wait(20)
        assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert limits.violations == []
    assert limits.arrived["m"].most >= 150
    assert server.max_billed() == 1


def test_without_limits_nothing_is_counted_in_the_ledger(
    server: TestServer, tmp_path: Path
) -> None:
    def counted(**limits: float) -> bool:
        store = tmp_path / f"{len(limits)}.sqlite"
        model = smartsql.Model(
            name="m", base_url=server.base_url, reference=True, input_usd_per_mtok=1,
            output_usd_per_mtok=1, **limits,
        )  # fmt: skip
        with smartsql.connect(config=smartsql.Settings(), models=[model], store=str(store)) as con:
            con.execute("SELECT smart_llm('a' || i, 0.0) FROM range(5) t(i)").fetchall()
        with sqlite3.connect(store) as db:
            return bool(db.execute("SELECT 1 FROM sqlite_master WHERE name = 'pace'").fetchall())

    assert not counted()
    assert counted(requests_per_minute=6000)


# --- counters -----------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


ONE = Permits(1.0, 10.0)
LIMITS = Limits(requests=120.0, tokens=math.inf, minute_s=60.0)


@pytest.mark.parametrize("shared", [False, True])
def test_a_counter_lets_no_minute_have_more_whenever_it_begins(
    shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, draw = Clock(), random.Random(5)
    counter = SharedCounter(Ledger(tmp_path / "a.sqlite").path, "lane") if shared else OwnCounter()
    monkeypatch.setattr(counter, "now", clock)
    sent: list[float] = []
    running: list[float] = []
    while clock.at < 1300.0:
        over = [end for end in running if end <= clock.at]
        running = [end for end in running if end > clock.at]
        ended = [Ended(clock.at + 60.0, Permits(float(len(over)), 0.0))] if over else []
        granted = counter.exchange(LIMITS, Change(ended=ended, need=ONE, want=ONE))
        if granted.permits.requests:
            arrives = clock.at + draw.uniform(0.0, 2.0)
            sent.append(arrives)
            running.append(arrives + draw.uniform(0.0, 1.0))
        else:
            assert granted.wait_s > 0.0
        clock.at += draw.choice([0.01, 0.1, 0.5])
    counter.close()
    sent.sort()
    most = max(sum(at <= other < at + 60.0 for other in sent) for at in sent)
    assert 100 <= most <= 120


def test_what_a_dead_process_held_counts_for_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Ledger(tmp_path / "a.sqlite").path
    limits, clock = Limits(10.0, math.inf, 60.0), Clock()
    dead, alive = SharedCounter(path, "lane"), SharedCounter(path, "lane")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = dead._owner.partition(":")[0]
    monkeypatch.setattr(dead, "_owner", f"{host}:{ended.pid}:x")
    for counter in (dead, alive):
        monkeypatch.setattr(counter, "now", clock)
    for _ in range(10):
        assert dead.exchange(limits, Change(need=Permits(1.0), want=Permits(1.0))).permits.requests
        clock.at += 10.0
    want = Change(need=Permits(1.0), want=Permits(1.0))
    assert alive.exchange(limits, want).permits == NONE
    clock.at += 59.0
    assert alive.exchange(limits, want).permits == NONE
    clock.at += 5.0
    assert alive.exchange(limits, want).permits.requests == 1.0
    dead.close(), alive.close()


def test_what_was_not_used_is_returned_and_a_call_that_used_more_is_a_debt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> tuple[bool, bool, bool]:
        monkeypatch.setattr(pace, "MINUTE_S", 3600.0)
        kept = Pace(tokens_per_minute=1000)

        async def admitted(tokens: float) -> bool:
            try:
                async with asyncio.timeout(0.1):
                    held = await kept.admit(tokens)
                kept.end(held, tokens)
                return True
            except TimeoutError:
                return False

        held = await kept.admit(90)
        kept.end(held, 10)  # reserved 90, used 10: 80 of the 100 that may go at once are left
        first = await admitted(85)
        held = await kept.admit(1)
        kept.end(held, 990)  # far more than it was expected to use at most
        second = await admitted(1)
        kept = Pace(tokens_per_minute=1000)
        return first, second, await admitted(10**9)  # the largest call takes a whole minute's

    assert asyncio.run(scenario()) == (True, False, True)


def test_those_who_wait_for_permits_are_served_in_order_and_may_leave() -> None:
    async def scenario() -> list[int]:
        kept, order = Pace(requests_per_minute=1200), list[int]()

        async def call(i: int) -> None:
            held = await kept.admit(1)
            order.append(i)
            kept.end(held, 1)

        tasks = [asyncio.create_task(call(i)) for i in range(40)]
        await asyncio.sleep(0.01)
        for i in (25, 30):
            tasks[i].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return order

    order = asyncio.run(scenario())
    assert order == [i for i in range(40) if i not in (25, 30)]


# --- endpoints that hang ------------------------------------------------------------------------


def test_an_endpoint_that_hangs_does_not_hold_the_places_of_others(server: TestServer) -> None:
    slots = Slots(64)
    slow, fast = (backend_for(server.base_url, name, slots=slots) for name in ("slow", "fast"))
    server.faults = lambda call: "hang" if call.model == "slow" else None
    hanging: Attempts = SimpleQueue()
    out: Attempts = SimpleQueue()
    cancelled = Event()
    slow.start(requests_for([f"s{i}" for i in range(500)]), (), hanging, cancelled)
    while len(server.calls) < 56:  # all but the eighth part that is kept for the other one
        time.sleep(0.005)
    fast.start(requests_for([f"f{i}" for i in range(300)]), (), out, Event())
    answered = collect(out, 300)
    assert {tried[-1].status for tried in answered.values()} == {"ok"}
    assert sum(call.model == "slow" for call in server.calls) == 56
    cancelled.set()
    collect(hanging, 500)
    slow.close(), fast.close()


def test_places_are_shared_evenly_among_models_that_want_them() -> None:
    async def scenario() -> tuple[int, int, int]:
        slots = Slots(12)
        greedy, late = slots.share(), slots.share()

        async def hold(share: object, seconds: float) -> None:
            async with share:  # type: ignore[attr-defined]
                await asyncio.sleep(seconds)

        tasks = [asyncio.create_task(hold(greedy, 0.05)) for _ in range(60)]
        await asyncio.sleep(0)
        alone = greedy.taken
        tasks += [asyncio.create_task(hold(late, 0.05)) for _ in range(60)]
        await asyncio.sleep(0.075)  # those of the first round are over
        both = late.taken
        for task in tasks[10:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return alone, both, slots.taken

    alone, both, left = asyncio.run(scenario())
    assert (alone, left) == (11, 0)
    assert 5 <= both <= 7


def test_a_model_alone_may_have_all_places() -> None:
    async def scenario() -> int:
        share = (slots := Slots(9)).share()
        for _ in range(9):
            await share.__aenter__()
        return slots.taken

    assert asyncio.run(scenario()) == 9
    assert shared_loop().is_usable
