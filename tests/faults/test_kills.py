"""Killed at any moment: the rerun pays only for calls that were in flight, and ends the same.

Real processes and SIGKILL, real HTTP, a ledger on disk, a server that keeps its own bill.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.faults.scenes import LOST_PER_KILL, Scene, Zygotes, comparable, said, settled
from tests.faults.steps import STEPS
from tests.faults.zygote import IN_FLIGHT
from tests.gateway.server import TestServer

ROWS = 300
LATENCY_S = 0.003
MOMENTS = 54
AT_ONCE = 2
RERUN_STEPS = {
    "before the lost calls are looked for",
    "while the lost calls are written",
    "between the lost calls and the end of their notes",
}
"""Steps of a run that comes after one that was killed."""


@dataclass
class Undisturbed:
    """What the statement leads to when nobody disturbs it."""

    result: dict[str, Any]
    billed: int
    usd: float


@pytest.fixture(scope="module")
def undisturbed(zygotes: Zygotes, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    def alone(scene: Scene) -> Undisturbed:
        result = comparable(scene.finished(), scene.server.base_url)
        assert scene.lost() == {}
        assert scene.server.max_billed() == 1
        assert scene.money()[0] == pytest.approx(scene.billed_usd(), rel=1e-9)
        return Undisturbed(result, len(scene.server.bill), scene.billed_usd())

    return in_scene(zygotes, tmp_path_factory.mktemp("undisturbed"), alone)


T = TypeVar("T")


def in_scene(zygotes: Zygotes, folder: Path, act: Callable[[Scene], T]) -> T:
    with zygotes.one() as zygote, TestServer(answer=said, latency_s=LATENCY_S) as server:
        return act(Scene(folder, server, zygote, ROWS))


def goes_on_as_if_nothing_had_happened(
    scene: Scene, undisturbed: Undisturbed, *, again: bool = True
) -> None:
    """Run the statement to its end; what was paid, what is told, what came out."""
    settled(scene.server)
    recorded, before = scene.recorded(), scene.billed()
    result = scene.finished()
    bill, lost = scene.billed(), scene.lost()
    # what is in the ledger is never asked again
    assert {pair for pair in recorded if bill[pair] != before[pair]} == set()
    # what was billed once more, or without an answer in the ledger, is told as lost
    answered = scene.recorded()
    untold = {pair: n for pair, n in bill.items() if n > (pair in answered) + lost[pair]}
    assert untold == {}
    assert max(bill.values()) <= 1 + scene.kills
    assert sum(lost.values()) <= scene.kills * LOST_PER_KILL
    # to the cent: what is certain was billed, and of the rest no more than is told as possible
    certain, possible = scene.money()
    assert certain == pytest.approx(undisturbed.usd, rel=1e-9)
    assert certain - 1e-12 <= scene.billed_usd() <= certain + possible + 1e-12
    assert comparable(result, scene.server.base_url) == undisturbed.result
    told = any("status 'lost'" in note for note in result["report"]["notes"])
    assert told == bool(lost) or scene.kills > 1  # one that was killed itself has told before
    if again:  # and that was all
        scene.finished()
    assert scene.billed() == bill
    assert scene.lost() == lost
    assert not list(scene.folder.glob("*-sent-*"))


def test_killed_at_random_moments_it_pays_again_only_for_what_was_in_flight(
    zygotes: Zygotes, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Moments over the whole life: after so many calls, so many answers kept, so much time."""
    draws = random.Random(20)
    total = undisturbed.billed
    plans = []
    for number in range(MOMENTS):
        kind = ("billed", "recorded", "time")[number % 3]
        share = draws.random() * 0.97
        plans.append((kind, share, draws.random() * 0.008, draws.random() < 0.2))

    def killed(number: int) -> int:
        kind, share, delay_s, twice = plans[number]
        folder = tmp_path / str(number)
        folder.mkdir()

        def act(scene: Scene) -> int:
            whens: dict[str, Callable[[], bool]] = {
                "billed": lambda: len(scene.server.bill) >= share * total,
                "recorded": lambda: scene.n_recorded() >= share * total,
                "time": lambda: True,
            }
            life_s = 0.3 + 1.5 * total * LATENCY_S / IN_FLIGHT
            scene.killed_when(whens[kind], share * life_s if kind == "time" else delay_s)
            if twice:
                scene.killed_when(lambda: True, draws.random() * life_s)
            goes_on_as_if_nothing_had_happened(scene, undisturbed, again=number % 9 == 0)
            return scene.kills

        return in_scene(zygotes, folder, act)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        kills = list(pool.map(killed, range(MOMENTS)))
    assert sum(kills) >= 50, kills


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_it_goes_on_from_there(
    step: str, zygotes: Zygotes, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    def act(scene: Scene) -> None:
        if step in RERUN_STEPS:
            scene.killed_at("between a later answer and its write")
        scene.killed_at(step)
        again = step in RERUN_STEPS
        goes_on_as_if_nothing_had_happened(scene, undisturbed, again=again)

    in_scene(zygotes, tmp_path, act)
