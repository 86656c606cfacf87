"""Several processes with one statement and one ledger: every call is paid once, and all agree."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from smartsql.ledger import claims
from tests.faults.scenes import LOST_PER_KILL, Scene, Zygote, Zygotes, comparable, said, settled
from tests.gateway.server import TestServer

ROWS = 400
OTHER_ROWS = 440


@pytest.fixture
def made(zygotes: Zygotes) -> Iterator[list[Zygote]]:
    with ExitStack() as stack:
        yield [stack.enter_context(zygotes.one()) for _ in range(4)]


@pytest.fixture
def server() -> Iterator[TestServer]:
    with TestServer(answer=said, latency_s=0.005) as running:
        yield running


def scenes(made: list[Zygote], server: TestServer, folder: Path, n: int) -> list[Scene]:
    return [Scene(folder, server, made[k], ROWS, name=str(k)) for k in range(n)]


def results(some: list[Scene]) -> list[dict[str, Any]]:
    return [scene.ended() for scene in some]


@pytest.mark.parametrize("n", [2, 4])
def test_processes_with_the_same_statement_pay_once_and_agree(
    n: int, made: list[Zygote], server: TestServer, tmp_path: Path
) -> None:
    all_of_them = scenes(made, server, tmp_path, n)
    for scene in all_of_them:
        scene.begin()
    found = [comparable(result, server.base_url) for result in results(all_of_them)]
    assert all(other == found[0] for other in found[1:])
    one = all_of_them[0]
    assert server.max_billed() == 1
    assert one.lost() == {}
    assert set(one.billed()) == one.recorded()
    assert one.money() == (pytest.approx(one.billed_usd(), rel=1e-9), 0.0)
    assert one.query("SELECT count(*) FROM claims") == [(0,)]
    assert not list(tmp_path.glob("*-sent-*"))


def test_processes_with_overlapping_statements_pay_once(
    made: list[Zygote], server: TestServer, tmp_path: Path
) -> None:
    both = scenes(made, server, tmp_path, 2)
    both[1].rows = OTHER_ROWS
    for scene in both:
        scene.begin()
    assert [len(result["rows"]) for result in results(both)] == [ROWS, OTHER_ROWS]
    assert server.max_billed() == 1
    assert set(both[0].billed()) == both[0].recorded()


def test_of_four_processes_one_is_killed_and_the_others_take_over_its_calls(
    made: list[Zygote], server: TestServer, tmp_path: Path
) -> None:
    """At once, and not when its lease ends: the machine knows that the process is gone."""
    four = scenes(made, server, tmp_path, 4)
    pids = [scene.begin() for scene in four]
    while len(server.bill) < 60:
        time.sleep(0.002)
    # the one that asks is the one that holds claims; the others wait for its answers
    holders = {int(owner.split(":")[1]) for (owner,) in four[0].query("SELECT owner FROM claims")}
    victim = next(k for k, pid in enumerate(pids) if pid in holders)
    started = time.monotonic()
    os.kill(pids[victim], signal.SIGKILL)
    assert four[victim].zygote.ended() == -signal.SIGKILL
    others = [scene for k, scene in enumerate(four) if k != victim]
    found = [comparable(result, server.base_url) for result in results(others)]
    assert time.monotonic() - started < claims.LEASE_S
    assert all(other == found[0] for other in found[1:])
    settled(server)
    one = others[0]
    bill, lost, answered = one.billed(), one.lost(), one.recorded()
    assert {pair for pair, n in bill.items() if n > (pair in answered) + lost[pair]} == set()
    assert max(bill.values()) <= 2
    assert sum(lost.values()) <= LOST_PER_KILL
    certain, possible = one.money()
    assert certain - 1e-12 <= one.billed_usd() <= certain + possible + 1e-12
    # and it ends as for one that was never disturbed
    alone = Scene(tmp_path / "alone", server, made[0], ROWS)
    alone.folder.mkdir()
    assert comparable(alone.finished(), server.base_url) == found[0]
