"""What hindsight could do, by hand and against enumeration."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from smartsql.executor import Outcome, run
from smartsql.policies.reference import Reference
from smartsql.replay.hindsight import (
    Clairvoyant,
    Hindsight,
    OracleCascade,
    OracleMix,
    OracleSingle,
)
from smartsql.replay.recording import RecordedSource, Recording
from smartsql.types import FAILED, Requirement

ALL = (OracleSingle, OracleMix, OracleCascade, Clairvoyant)


def outcome(
    kind: type[Hindsight], recording: Recording, delta: float, *, seed: int | None = None
) -> Outcome:
    problem = recording.problem(Requirement(delta, 0.95), seed=seed or 0, stored_order=seed is None)
    return run(kind(recording), problem, RecordedSource(recording))


def spend(result: Outcome) -> float:
    models = result.profile.problem.models
    return sum(float(result.profile.costs(model.name).sum()) for model in models)


def differing(result: Outcome, recording: Recording) -> int:
    models = result.profile.problem.models
    right = np.stack([recording.agrees(model.name) for model in models])
    wrong = ~right[result.answered_by, np.arange(result.answered_by.size)]
    return int(recording.weights[wrong].sum())


def random_recording(seed: int, n: int, *, weighted: bool = False) -> Recording:
    random = np.random.default_rng(seed)
    codes: dict[str, Any] = {"r": random.integers(0, 2, n)}
    confidences = {}
    for model, agreement in (("a", 0.6), ("b", 0.85)):
        right = random.random(n) < agreement
        codes[model] = np.where(right, codes["r"], 5)
        codes[model][random.random(n) < 0.05] = FAILED
        confidences[model] = np.round(random.random(n) * 0.5 + right * 0.4, 1)
    costs = {"r": 1.0 + random.random(n), "a": random.random(n) * 0.1, "b": random.random(n) * 0.5}
    weights = random.integers(1, 5, n) if weighted else None
    return Recording.of(codes, costs, confidences=confidences, weights=weights)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("weighted", [False, True])
def test_hindsight_keeps_the_promise_in_every_order(kind: type[Hindsight], weighted: bool) -> None:
    for seed in range(30):
        recording = random_recording(seed, 40, weighted=weighted)
        for delta in (0.0, 0.05, 0.2, 0.6):
            result = outcome(kind, recording, delta, seed=seed)
            wrong = differing(result, recording)
            assert wrong <= Requirement(delta, 0.95).tolerated(recording.n_rows)
            assert result.plan.bound == pytest.approx(wrong / recording.n_rows)


def test_single_is_the_cheapest_model_that_agrees_often_enough() -> None:
    codes: dict[str, Any] = {"r": np.ones(10), "a": [0] * 3 + [1] * 7, "b": [0] + [1] * 9}
    recording = Recording.of(codes, {"r": 1.0, "a": 0.1, "b": 0.5})
    for delta, model, cost in ((0.05, 0, 10.0), (0.1, 2, 5.0), (0.3, 1, 1.0)):
        result = outcome(OracleSingle, recording, delta)
        assert (result.answered_by == model).all()
        assert spend(result) == pytest.approx(cost)


def test_single_never_takes_a_model_dearer_than_the_reference() -> None:
    recording = Recording.of({"r": np.ones(4), "a": np.ones(4)}, {"r": 1.0, "a": 2.0})
    assert not outcome(OracleSingle, recording, 0.1).answered_by.any()


def test_mixture_hands_over_at_the_last_row_that_keeps_the_promise() -> None:
    # every second row differs: with two tolerated of ten the fifth error-free stretch ends at 5
    codes: dict[str, Any] = {"r": np.ones(10), "a": [1, 0, 1, 0, 1, 0, 1, 0, 1, 0]}
    result = outcome(OracleMix, Recording.of(codes, {"r": 1.0, "a": 0.1}), 0.2)
    assert result.answered_by.tolist() == [1] * 5 + [0] * 5
    assert spend(result) == pytest.approx(5.5)


def test_mixture_of_two_cheap_models_needs_no_reference_where_one_is_good_enough() -> None:
    codes: dict[str, Any] = {"r": np.ones(20), "a": [0, 1] * 10, "b": [1] * 19 + [0]}
    recording = Recording.of(codes, {"r": 1.0, "a": 0.01, "b": 0.1})
    result = outcome(OracleMix, recording, 0.2)
    assert set(result.answered_by.tolist()) == {1, 2}
    assert result.profile.n_asked("r") == 0
    # errors of "a" in the first six rows (3) and the one of "b" at the end make the four tolerated
    assert result.answered_by.tolist() == [1] * 6 + [2] * 14


def test_mean_cost_of_the_mixture_is_that_of_the_linear_program() -> None:
    random = np.random.default_rng(0)
    codes: dict[str, Any] = {"r": np.ones(2000), "a": (random.permutation(2000) >= 400).astype(int)}
    recording = Recording.of(codes, {"r": 1.0, "a": 0.1})
    costs = [spend(outcome(OracleMix, recording, 0.05, seed=seed)) for seed in range(200)]
    # 100 of 400 errors tolerated: a quarter of the rows at a tenth of the price
    assert np.mean(costs) / 2000 == pytest.approx(1 - 0.25 * 0.9, abs=0.005)


def test_cascade_asks_the_cheap_model_everywhere_and_keeps_equal_confidences_together() -> None:
    codes: dict[str, Any] = {"r": np.ones(8), "a": [1, 1, 1, 0, 1, 0, 1, 1]}
    confidence = [0.9, 0.9, 0.8, 0.7, 0.7, 0.6, np.nan, 0.6]
    recording = Recording.of(codes, {"r": 1.0, "a": 0.1}, confidences={"a": confidence})
    for delta, kept in ((0.0, 3), (0.13, 5), (0.25, 7)):
        result = outcome(OracleCascade, recording, delta)
        assert result.profile.n_asked("a") == 8
        assert (result.answered_by == 1).sum() == kept
        assert spend(result) == pytest.approx(0.8 + 8 - kept)
    assert result.answered_by[6] == 0


def test_cascade_that_does_not_pay_is_the_reference() -> None:
    codes: dict[str, Any] = {"r": np.ones(4), "a": [0, 0, 0, 1], "silent": np.ones(4)}
    confidences = {"a": [0.9, 0.9, 0.9, 0.1]}
    recording = Recording.of(codes, {"r": 1.0, "a": 0.1, "silent": 0.1}, confidences=confidences)
    result = outcome(OracleCascade, recording, 0.25)
    assert not result.answered_by.any()
    assert result.profile.n_asked("a") == 0


def test_failed_answers_never_pass_the_cascade() -> None:
    codes: dict[str, Any] = {"r": np.ones(10), "a": [FAILED] + [1] * 9}
    recording = Recording.of(codes, {"r": 1.0, "a": 0.1}, confidences={"a": [1.0] + [0.5] * 9})
    assert outcome(OracleCascade, recording, 0.1).answered_by.tolist() == [0] + [1] * 9


@pytest.mark.parametrize("delta", [0.0, 0.2, 0.5])
def test_clairvoyant_is_the_cheapest_of_all_assignments(delta: float) -> None:
    for seed in range(5):
        recording = random_recording(seed, 6)
        right = np.stack([recording.agrees(m) for m in recording.models])
        costs = np.stack([recording.costs[m] for m in recording.models])
        rows = np.arange(6)
        best = min(
            costs[list(models), rows].sum()
            for models in itertools.product(range(3), repeat=6)
            if (~right[list(models), rows]).sum() <= int(delta * 6 + 1e-9)
        )
        result = outcome(Clairvoyant, recording, delta)
        assert spend(result) == pytest.approx(best)


def test_clairvoyant_is_below_every_other_line() -> None:
    for seed in range(10):
        recording = random_recording(seed, 60)
        costs = {kind: spend(outcome(kind, recording, 0.1, seed=seed)) for kind in ALL}
        assert min(costs.values()) == costs[Clairvoyant]
        assert max(costs.values()) <= recording.reference_spend_usd + 1e-9


def test_weights_limit_what_the_clairvoyant_may_leave_wrong() -> None:
    codes: dict[str, Any] = {"r": np.ones(3), "a": np.zeros(3)}
    recording = Recording.of(codes, {"r": [1.0, 1.0, 9.0], "a": 0.1}, weights=[1, 1, 8])
    assert outcome(Clairvoyant, recording, 0.2).answered_by.tolist() == [1, 1, 0]


def test_reference_asks_about_every_row_once() -> None:
    recording = random_recording(1, 50, weighted=True)
    problem = recording.problem(Requirement(0.1, 0.95), seed=3)
    result = run(Reference(), problem, RecordedSource(recording))
    assert result.profile.n_asked("r") == 50
    assert spend(result) == pytest.approx(recording.reference_spend_usd)
    assert result.plan.bound == 0.0
