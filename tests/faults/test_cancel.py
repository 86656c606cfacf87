"""Ctrl-C, `interrupt()` and results that nobody reads on, with calls in flight: over at once.

A cancelled statement waits a moment for what is in flight, keeps what came back, and its rerun
pays for none of that again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

import smartsql
from smartsql.errors import CancelledError
from smartsql.policies import Steps
from smartsql.policies.certified import Certified
from smartsql.profile import Problem, Profile
from smartsql.sql.protocol import Call
from smartsql.types import Plan
from tests.gateway.server import Call as Asked
from tests.gateway.server import Fault, TestServer
from tests.test_end_to_end import said

LIMIT_S = 1.0
"""A statement ends within it on a machine that has a processor for it; see `best`."""
ATTEMPTS = 3
WAIT_S = 30.0
ROWS = 400
QUERY = "SELECT i, smart_llm('review ' || i, 0.1, 0.95) FROM range({n}) t(i) ORDER BY i"
MODEL = """
[[models]]
name = "{name}"
base_url = "{url}"
reference = {reference}
input_usd_per_mtok = {usd}
output_usd_per_mtok = {usd}
"""
LIBRARY = """
import sys, time, smartsql
con = smartsql.connect()
try:
    con.execute(sys.argv[1]).fetchall()
except KeyboardInterrupt:
    print("interrupted at", time.monotonic(), flush=True)
con.close()
"""
TROUBLES = {
    "slow bodies": Fault("slow_body", delay_s=60),
    "hangs": Fault("hang"),
    "refusals": Fault("status", status=429, retry_after_s=60),
}


class Stuck:
    """The server's calls are answered until so many have been, then all of them are in trouble."""

    def __init__(self, server: TestServer, fault: Fault, after: int) -> None:
        self.server, self.fault, self.after = server, fault, after
        self.waiting = 0
        server.faults = self.decide

    def decide(self, call: Asked) -> Fault | None:
        if call.serial < self.after:
            return None
        self.waiting += 1
        return self.fault

    def wait(self, calls: int = 1) -> None:
        """Until so many are in trouble and all others were answered."""
        deadline = time.monotonic() + WAIT_S
        while self.waiting < calls or len(delivered(self.server)) < self.after:
            assert time.monotonic() < deadline, (self.waiting, len(self.server.calls))
            time.sleep(0.005)


def delivered(server: TestServer) -> set[tuple[str, str]]:
    """Calls whose answers were handed over."""
    return {(line.model, line.prompt) for line in server.bill if line.delivered}


def settings(server: TestServer, folder: Path, *, alone: bool) -> Path:
    """A configuration file; `alone`: the reference without candidates, so that all is asked."""
    names = ["big"] if alone else ["big", "small"]
    path = folder / "smartsql.toml"
    path.write_text(
        "seed = 5\nmax_in_flight = 256\n"
        + "".join(
            MODEL.format(
                name=name,
                url=server.base_url,
                reference=str(name == "big").lower(),
                usd=10.0 if name == "big" else 0.3,
            )
            for name in names
        )
    )
    return path


def opened(server: TestServer, folder: Path, *, alone: bool = False) -> Any:
    return smartsql.connect(
        config=settings(server, folder, alone=alone), store=str(folder / "answers.sqlite")
    )


def best(attempt: Callable[[int], float]) -> None:
    """The shortest of some attempts is short; each checks on its own what was kept.

    Where more processes want to run than there are processors, all take so much longer.
    """
    seconds: list[float] = []
    for number in range(ATTEMPTS):
        seconds.append(attempt(number))
        crowd = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        if seconds[-1] < LIMIT_S * crowd:
            return
    raise AssertionError(f"it took {seconds} s, {crowd:.1f} processes a processor")


def rerun_pays_for_nothing_again(server: TestServer, folder: Path, *, alone: bool = False) -> None:
    """All that the server delivered is in the ledger, and the same statement ends by it."""
    before = delivered(server)
    assert before
    server.faults = None
    with opened(server, folder, alone=alone) as con:
        rows = con.execute(QUERY.format(n=ROWS)).fetchall()
    assert len(rows) == ROWS
    wrong = sum(answer != said("big", f"review {i}") for i, answer in rows)
    assert wrong <= ROWS / 10
    times = server.multiplicity()
    asked_again = [pair for pair in before if times[pair] > 1]
    assert asked_again == []


# -- Ctrl-C in a process ----------------------------------------------------------------------


def process(folder: Path, how: str) -> subprocess.Popen[str]:
    query = QUERY.format(n=ROWS)
    command = ["-c", LIBRARY, query] if how == "library" else ["-m", "smartsql", "-c", query]
    environment = os.environ | {
        "PYTHONPATH": os.getcwd(),
        "SMARTSQL_STORE": str(folder / "answers.sqlite"),
    }
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
    )


def pressed(running: subprocess.Popen[str], how: str, *, times: int = 1) -> float:
    """Press Ctrl-C; seconds until the statement has ended, and the process says so."""
    start = time.monotonic()
    for _ in range(times):
        running.send_signal(signal.SIGINT)
        time.sleep(0.05 if times > 1 else 0)
    assert running.stdout is not None and running.stderr is not None
    first = running.stderr.readline()  # nothing, at the end, from the library
    took = time.monotonic() - start
    out, err = running.stdout.read(), first + running.stderr.read()
    running.wait(WAIT_S)
    assert "Traceback" not in err, err
    if how == "command line":
        assert running.returncode == 130, err
        assert "interrupted; the answers that came back are kept." in err
        return took
    assert running.returncode == 0, err
    assert "interrupted at " in out, out
    return float(out.split()[-1]) - start


@pytest.mark.parametrize(
    ("how", "trouble"),
    [
        *[("library", trouble) for trouble in TROUBLES],
        ("command line", "hangs"),
        ("command line", "slow bodies"),
    ],
)
def test_ctrl_c_ends_a_process_at_once_and_keeps_what_came_back(
    how: str, trouble: str, tmp_path: Path
) -> None:
    def attempt(number: int) -> float:
        folder = tmp_path / str(number)
        folder.mkdir()
        with TestServer(answer=said) as server:
            stuck = Stuck(server, TROUBLES[trouble], after=120)
            settings(server, folder, alone=True)
            with process(folder, how) as running:
                stuck.wait(32)
                took = pressed(running, how)
            rerun_pays_for_nothing_again(server, folder, alone=True)
        return took

    best(attempt)


@pytest.mark.parametrize("how", ["library", "command line"])
def test_pressing_ctrl_c_again_loses_nothing(how: str, tmp_path: Path) -> None:
    with TestServer(answer=said) as server:
        stuck = Stuck(server, TROUBLES["hangs"], after=120)
        settings(server, tmp_path, alone=True)
        with process(tmp_path, how) as running:
            stuck.wait()
            pressed(running, how, times=4)
        rerun_pays_for_nothing_again(server, tmp_path, alone=True)


# -- interrupt() from another thread ----------------------------------------------------------


def interrupted(con: Any, when: Callable[[], object], query: str) -> float:
    """Run a statement, interrupt it from another thread; seconds from there to its end."""
    at: list[float] = []

    def stop() -> None:
        when()
        at.append(time.monotonic())
        con.interrupt()

    helper = threading.Thread(target=stop)
    helper.start()
    with pytest.raises((CancelledError, duckdb.InterruptException)):
        con.execute(query).fetchall()
    ended = time.monotonic()
    helper.join()
    return ended - at[0]


@pytest.mark.parametrize(
    ("after", "trouble"),
    [(0, "hangs"), (0, "refusals"), (25, "slow bodies"), (60, "refusals"), (110, "hangs")],
)
def test_an_interrupt_ends_a_statement_at_once_in_every_phase(
    after: int, trouble: str, tmp_path: Path
) -> None:
    def attempt(number: int) -> float:
        folder = tmp_path / str(number)
        folder.mkdir()
        with TestServer(answer=said) as server:
            stuck = Stuck(server, TROUBLES[trouble], after)
            with opened(server, folder) as con:
                took = interrupted(con, stuck.wait, QUERY.format(n=ROWS))
                sent = len(server.calls)
                assert con.execute("SELECT 42").fetchall() == [(42,)]
            if after:
                rerun_pays_for_nothing_again(server, folder)
            assert sent <= after + 256
        return took

    best(attempt)


def test_256_calls_in_flight_end_at_once(tmp_path: Path) -> None:
    rows = 2500

    def attempt(number: int) -> float:
        folder = tmp_path / str(number)
        folder.mkdir()
        with TestServer(answer=said) as server:
            stuck = Stuck(server, TROUBLES["hangs"], after=1500)
            with opened(server, folder, alone=True) as con:
                took = interrupted(con, lambda: stuck.wait(256), QUERY.format(n=rows))
                assert server.most_in_flight <= 256
            server.faults = None
            before = delivered(server)
            with opened(server, folder, alone=True) as con:
                assert len(con.execute(QUERY.format(n=rows)).fetchall()) == rows
            times = server.multiplicity()
            assert all(times[pair] == 1 for pair in before)
            assert sum(times.values()) == rows + 256
        return took

    best(attempt)


class Between:
    """The usual policy, interrupted between two steps: all has come back, nothing is in flight."""

    name = "certified"

    def __init__(self, step: int, interrupt: Callable[[], None]) -> None:
        self.step, self.interrupt = step, interrupt

    def steps(self, problem: Problem, profile: Profile) -> Steps:
        steps = Certified().steps(problem, profile)
        for number in count():
            try:
                asks = next(steps)
            except StopIteration as stop:
                plan: Plan = stop.value
                return plan
            if number == self.step:
                other = threading.Thread(target=self.interrupt)
                other.start()
                other.join()
            yield asks
        raise AssertionError("unreachable")


@pytest.mark.parametrize("step", [0, 1, 2])
def test_an_interrupt_between_two_steps_asks_nothing_more(step: int, tmp_path: Path) -> None:
    with TestServer(answer=said) as server:
        calls: list[int] = []
        with opened(server, tmp_path) as con:

            def interrupt() -> None:
                calls.append(len(server.calls))
                con.interrupt()

            con.engine._policy = Between(step, interrupt)
            with pytest.raises((CancelledError, duckdb.InterruptException)):
                con.execute(QUERY.format(n=ROWS)).fetchall()
            assert calls == [len(server.calls)]
        if step:
            rerun_pays_for_nothing_again(server, tmp_path)


def test_a_call_that_is_stopped_on_its_way_to_the_engine_asks_nothing(tmp_path: Path) -> None:
    stopped = threading.Event()
    stopped.set()
    with TestServer(answer=said) as server, opened(server, tmp_path) as con:
        call = Call("p", 0.1, 0.95, None, stopped=stopped)
        with pytest.raises(CancelledError):
            con.engine.answer(call, pa.array(["a", "b"]), np.ones(2, np.int64))
        assert server.calls == []


def test_an_interrupt_reaches_only_its_own_connection(tmp_path: Path) -> None:
    with TestServer(answer=said) as server, opened(server, tmp_path, alone=True) as con:
        go_on = threading.Event()
        stuck = Stuck(server, TROUBLES["hangs"], after=0)
        server.faults = lambda call: stuck.decide(call) if "stop" in call.prompt else None
        with con.cursor() as other:
            answers: list[Any] = []

            def both() -> None:
                stuck.wait()
                query = "SELECT smart_llm('go ' || i) FROM range(50) t(i)"
                answers.extend(other.execute(query).fetchall())
                go_on.set()

            interrupted(
                con,
                lambda: (threading.Thread(target=both).start(), go_on.wait(WAIT_S)),
                "SELECT smart_llm('stop ' || i) FROM range(50) t(i)",
            )
        assert len(answers) == 50


def test_a_python_function_that_hangs_does_not_keep_the_statement(tmp_path: Path) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def hanging(texts: list[str]) -> list[str]:
        asked.set()
        assert go_on.wait(WAIT_S)
        return ["x"] * len(texts)

    model = smartsql.Model(name="f", kind="python", function=hanging, reference=True)
    with smartsql.connect(models=[model], store=str(tmp_path / "answers.sqlite")) as con:
        try:
            best(lambda _: interrupted(con, lambda: asked.wait(WAIT_S), QUERY.format(n=50)))
        finally:
            go_on.set()
