"""BARGAIN: the bets are fair, the prefixes nested, the promise kept where errors hide worst."""

from __future__ import annotations

from itertools import combinations
from math import comb, log, sqrt

import numpy as np
import pytest

from smartsql.executor import Outcome, run
from smartsql.policies.cascades.bargain import PREFIXES, Bargain, lay_out
from smartsql.policies.cascades.mean_test import log_capital
from smartsql.policies.cascades.tiers import Judged, tiers
from smartsql.profile import Profile
from smartsql.replay.recording import RecordedSource, Recording
from smartsql.types import Ask, FloatArray, Requirement


def data(
    wrong: np.ndarray, confidences: FloatArray, weights: np.ndarray | None = None
) -> Recording:
    return Recording.of(
        {"large": np.zeros(wrong.size), "small": wrong.astype(int)},
        {"large": 1.0, "small": 0.05},
        confidences={"small": confidences},
        weights=weights,
    )


def solve(recording: Recording, delta: float, seed: int) -> Outcome:
    problem = recording.problem(Requirement(delta, 0.95), seed)
    return run(Bargain(), problem, RecordedSource(recording))


def wrong_rows(recording: Recording, outcome: Outcome) -> int:
    mine = outcome.answered_by == 1
    return int(recording.weights[mine & ~recording.agrees("small")].sum())


@pytest.mark.parametrize(("size", "ones"), [(8, 5), (10, 7), (9, 9), (7, 0)])
def test_capital_expects_no_gain_where_the_hypothesis_holds(size: int, ones: int) -> None:
    """Exact over all orders: the mean capital after each draw is at most 1."""
    means = np.zeros(size)
    for places in combinations(range(size), ones):
        bits = np.zeros(size, dtype=np.bool_)
        bits[list(places)] = True
        means += np.exp(log_capital(bits, ones / size, 0.05, size)) / comb(size, ones)
    assert (means <= 1.0 + 1e-9).all()
    assert means[0] == pytest.approx(1.0)


def test_capital_grows_where_the_mean_is_higher_and_shrinks_where_it_is_lower() -> None:
    bits = np.random.default_rng(0).random(400) < 0.9
    assert log_capital(bits, 0.8, 0.05, 4000)[-1] > log(20)
    assert log_capital(bits, 0.97, 0.05, 4000)[-1] < 0.0


def test_draws_that_refute_the_hypothesis_alone_settle_it() -> None:
    capital = log_capital(np.ones(6, dtype=np.bool_), 0.5, 0.05, 10)
    # five ones are all that the hypothesis allows: it cannot stand a sixth draw
    assert np.isfinite(capital[:5]).all()
    assert capital[5] == np.inf


@pytest.mark.parametrize("weighted", [False, True])
def test_prefixes_are_nested_safest_first_and_equally_large(weighted: bool) -> None:
    rng = np.random.default_rng(2)
    confidences = np.where(rng.random(500) < 0.2, np.nan, np.round(rng.random(500), 1))
    weights = rng.integers(1, 5, 500) if weighted else None
    recording = data(np.zeros(500, dtype=bool), confidences, weights)
    problem = recording.problem(Requirement(0.1, 0.95), 3)
    profile = Profile(problem)
    every = np.arange(500)
    RecordedSource(recording).fulfil([Ask("small", every)], profile)
    (tier,) = tiers(problem)[0]
    scope = lay_out(problem, profile, Judged(tier, "small"), every)
    scores = np.nan_to_num(confidences[scope.prompts], nan=-1.0)
    assert (np.diff(scores) <= 0.0).all()
    assert sorted(scope.prompts.tolist()) == every.tolist()
    assert scope.ends.size == PREFIXES
    assert scope.sizes[-1] == recording.n_rows == scope.draws.size
    assert np.abs(np.diff(scope.sizes) - recording.n_rows / PREFIXES).max() <= 5
    # every row is drawn once, a prompt as often as its weight
    drawn = np.bincount(scope.draws, minlength=500)
    assert drawn.tolist() == recording.weights[scope.prompts].tolist()


def worst(kind: str, rows: int, errors: int) -> tuple[np.ndarray, FloatArray]:
    """One error more than tolerated, where it is hardest to see."""
    confidences = np.linspace(1.0, 0.0, rows)
    wrong = np.zeros(rows, dtype=bool)
    places = {
        "surest": np.arange(errors),
        "spread": np.linspace(0, rows - 1, errors).astype(int),
        "edge": np.arange(rows // 2 - errors, rows // 2),
    }
    wrong[places[kind]] = True
    return wrong, confidences


@pytest.mark.parametrize("kind", ["surest", "spread", "edge"])
@pytest.mark.parametrize("delta", [0.05, 0.2])
def test_the_promise_is_kept_on_tables_made_to_break_it(kind: str, delta: float) -> None:
    rows, seeds = 300, 200
    tolerated = int(delta * rows)
    recording = data(*worst(kind, rows, tolerated + 1))
    broken = sum(
        wrong_rows(recording, solve(recording, delta, s)) > tolerated for s in range(seeds)
    )
    assert broken / seeds <= 0.05 + 3 * sqrt(0.05 * 0.95 / seeds)


def test_repeated_prompts_count_with_their_weight() -> None:
    """The wrong tenth of the prompts stands in nearly half of the rows."""
    wrong = np.arange(300) % 10 == 0
    weights = np.where(wrong, 7, 1)
    confidences = np.random.default_rng(0).random(300)
    recording = data(wrong, confidences, weights)
    tolerated = int(0.2 * recording.n_rows)
    for seed in range(20):
        assert wrong_rows(recording, solve(recording, 0.2, seed)) <= tolerated


def test_a_perfect_model_is_proven_with_few_labels() -> None:
    recording = data(np.zeros(2000, dtype=bool), np.random.default_rng(0).random(2000))
    outcome = solve(recording, 0.1, 0)
    assert (outcome.answered_by == 1).mean() > 0.9
    assert outcome.plan.audited_rows < 200
    assert outcome.plan.certificate["prefixes"] == PREFIXES


def test_a_hopeless_model_is_given_up_soon() -> None:
    rng = np.random.default_rng(0)
    recording = data(rng.random(2000) < 0.9, rng.random(2000))
    outcome = solve(recording, 0.1, 0)
    # the first prefixes hold fewer rows than may be wrong
    assert outcome.plan.certificate["prefixes"] == 2
    assert outcome.plan.audited_rows <= 60
    assert wrong_rows(recording, outcome) <= 200
