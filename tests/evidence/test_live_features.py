"""Figures about the texts: from the cells, kept with the statement, the same ever after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from smartsql.features import features
from smartsql.ledger import Ledger
from smartsql.policies import Steps
from smartsql.profile import Features, Problem, Profile
from smartsql.reports.verify import verify
from smartsql.sql.protocol import Call as SmartCall
from smartsql.types import Plan
from tests.evidence.worlds import TEXTS, Everything, World, reply
from tests.gateway.server import TestServer

SEEN: list[Features | None] = []


class Looking(Everything):
    """`Everything`, and notes the features that it was given."""

    def steps(self, problem: Problem, profile: Profile) -> Steps:
        SEEN.append(problem.features)
        plan: Plan = yield from super().steps(problem, profile)
        return plan


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    SEEN.clear()
    with TestServer(reply=reply) as server:
        made = World(tmp_path, server)
        yield made
        made.close()


def in_order(world: World, texts: list[str], task: str | None) -> np.ndarray:
    """Figures of the texts in the order of their digests, as a statement has them."""
    call = SmartCall("review", 0.2, 0.9, task)
    work = world.engine().prepare(call, pa.array(texts), np.ones(len(texts), dtype=np.int64))
    return features(pa.array(texts).take(pa.array(work.order))).values


@pytest.mark.parametrize("task", ["tone", None])
def test_policies_see_figures_of_the_cells_with_and_without_a_task(
    world: World, task: str | None
) -> None:
    texts = [f"{text}{'!' * (i % 7)}" for i, text in enumerate(TEXTS)]
    world.asked(texts, Looking(), task)
    (seen,) = SEEN
    assert seen is not None
    np.testing.assert_array_equal(seen.values, in_order(world, texts, task))


def test_a_rerun_and_a_verification_use_what_was_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, report = world.asked(policy=Looking())

    def changed(texts: object) -> Features:
        raise AssertionError("the statement has its figures")

    monkeypatch.setattr("smartsql.calls.work.features", changed)
    world.asked(policy=Looking())
    monkeypatch.setattr("smartsql.reports.verify._policy", lambda strategy: Looking())
    monkeypatch.setattr("smartsql.reports.verify._certificate", lambda said: [])
    checks = verify(report.to_dict(), Ledger(world.settings.store))
    assert [check for check in checks if not check.holds] == []
    first, again, verified = SEEN
    assert first is not None and again is not None and verified is not None
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(first.values, verified.values)


@pytest.mark.parametrize(("delta", "n"), [(0.0, 60), (0.2, 12), (0.01, 60)])
def test_nothing_is_computed_where_no_candidate_may_answer(
    world: World, monkeypatch: pytest.MonkeyPatch, delta: float, n: int
) -> None:
    monkeypatch.setattr("smartsql.calls.work.features", lambda texts: pytest.fail("not needed"))
    engine = world.engine(Looking())
    call = SmartCall("review", delta, 0.9, "tone")
    engine.answer(call, pa.array(TEXTS[:n]), np.ones(n, dtype=np.int64))
    assert SEEN == [None]


def test_hostile_texts_have_figures(world: World) -> None:
    texts = ["", "\x00\x1b[31m", "\u202eabc", "x" * 200_000, "{input}", *TEXTS]
    world.asked(texts, Looking())
    (seen,) = SEEN
    assert seen is not None
    np.testing.assert_array_equal(seen.values, in_order(world, texts, "tone"))
