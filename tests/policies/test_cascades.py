"""The cascades of others: what they learn, keep and pay, on every kind of input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from smartsql.errors import ParameterError
from smartsql.executor import Outcome, run
from smartsql.policies import Policy
from smartsql.policies.cascades.automix import AutoMix
from smartsql.policies.cascades.bargain import Bargain
from smartsql.policies.cascades.pomdp import AutoMixPOMDP
from smartsql.policies.cascades.routers import (
    BINS,
    Bins,
    double_threshold_maps,
    greedy_maps,
    reward_maps,
    threshold_maps,
    train_simple,
    train_threshold,
)
from smartsql.policies.cascades.sample import Labelled, Sample, labelled_rows
from smartsql.policies.cascades.shunt import DataShunt
from smartsql.policies.cascades.threshold import Threshold
from smartsql.policies.cascades.thresholds import lowest, lowest_precise
from smartsql.policies.cascades.tiers import tiers
from smartsql.population import Population
from smartsql.replay.recording import RecordedSource, Recording
from smartsql.types import FAILED, Candidate, FloatArray, Requirement

POLICIES: list[Policy] = [
    Bargain(),
    Threshold(),
    DataShunt(),
    AutoMix("threshold"),
    AutoMix("pomdp-simple"),
    AutoMixPOMDP(),
]
NAMES = [policy.name for policy in POLICIES]
ROWS = 600


def data(
    wrong: np.ndarray,
    confidences: FloatArray | None = None,
    *,
    weights: np.ndarray | None = None,
    cost: float = 0.05,
) -> Recording:
    """A candidate `small` that errs where told, and labels 0 to 3."""
    labels = np.arange(wrong.size) % 4
    known = {} if confidences is None else {"small": confidences}
    return Recording.of(
        {"large": labels, "small": np.where(wrong, (labels + 1) % 4, labels)},
        {"large": 1.0, "small": cost},
        confidences=known,
        weights=weights,
    )


def informative(rows: int = ROWS, seed: int = 0) -> tuple[np.ndarray, FloatArray]:
    """A fifth of the answers is wrong, nearly all of them where confidence is low."""
    rng = np.random.default_rng(seed)
    confidences = rng.random(rows)
    return rng.random(rows) < 0.6 * (1.0 - confidences) ** 2, confidences


def solve(recording: Recording, policy: Policy, delta: float = 0.1, seed: int = 1) -> Outcome:
    problem = recording.problem(Requirement(delta, 0.95), seed)
    return run(policy, problem, RecordedSource(recording))


def spend(outcome: Outcome) -> float:
    """Cost of everything asked, in calls of a reference that costs 1."""
    return sum(float(outcome.profile.costs(m.name).sum()) for m in outcome.profile.problem.callable)


def wrong_rows(recording: Recording, outcome: Outcome) -> int:
    wrong = 0
    for position, model in enumerate(outcome.profile.problem.candidates, start=1):
        mine = outcome.answered_by == position
        wrong += int(recording.weights[mine & ~recording.agrees(model.name)].sum())
    return wrong


def facts(scores: list[float], wrong: list[int], **more: Any) -> Labelled:
    n = len(scores)
    return Labelled(
        np.array(scores),
        more.get("usable", np.ones(n, dtype=np.bool_)),
        np.array(wrong, dtype=np.bool_),
        np.array(more.get("counts", [1] * n)),
        more.get("price", 0.1),
    )


# --- whatever the input -------------------------------------------------------------------------


def confidences_of(kind: str, wrong: np.ndarray) -> FloatArray | None:
    rng = np.random.default_rng(3)
    sure = rng.random(wrong.size)
    return {
        "none": None,
        "unknown": np.full(wrong.size, np.nan),
        "constant": np.full(wrong.size, 0.7),
        "partly unknown": np.where(sure < 0.4, np.nan, sure),
        "inverted": np.where(wrong, 0.9, 0.2) + 0.1 * sure,
        "saturated": np.where(wrong, sure, 1.0),
    }[kind]


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
@pytest.mark.parametrize(
    "kind", ["none", "unknown", "constant", "partly unknown", "inverted", "saturated"]
)
def test_strange_confidences_cost_the_cheap_calls_and_the_labels_at_most(
    policy: Policy, kind: str
) -> None:
    wrong = np.random.default_rng(0).random(ROWS) < 0.2
    recording = data(wrong, confidences_of(kind, wrong))
    outcome = solve(recording, policy)
    assert spend(outcome) <= ROWS * 1.05 + 1e-6
    assert (outcome.answered_by <= 1).all()
    # what the reference was asked carries its answer
    assert (outcome.answered_by[outcome.profile.known("large", np.arange(ROWS))] == 0).all()
    if kind == "saturated" and not isinstance(policy, Bargain):
        assert spend(outcome) < 0.5 * ROWS


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
def test_good_confidences_save_money_and_errors_stay_near_the_allowance(policy: Policy) -> None:
    wrong, confidences = informative(2000)
    recording = data(wrong, confidences)
    outcomes = [solve(recording, policy, seed=seed) for seed in range(5)]
    assert np.mean([spend(o) for o in outcomes]) < 0.75 * 2000
    assert np.mean([wrong_rows(recording, o) for o in outcomes]) < 0.12 * 2000


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
@pytest.mark.parametrize("rows", [1, 3, 12, 13, 20])
def test_tiny_tables_are_answered(policy: Policy, rows: int) -> None:
    wrong, confidences = informative(rows)
    outcome = solve(data(wrong, confidences), policy, delta=0.1)
    assert outcome.answered_by.shape == (rows,)
    if rows <= 12:
        assert spend(outcome) == rows
        assert not outcome.answered_by.any()


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
def test_without_a_usable_candidate_or_allowance_the_reference_answers_all(policy: Policy) -> None:
    labels = np.zeros(ROWS)
    alone = Recording.of({"large": labels}, {"large": 1.0})
    dear = Recording.of({"large": labels, "small": labels}, {"large": 1.0, "small": 1.5})
    for recording, delta in ((alone, 0.1), (dear, 0.1), (data(labels > 0), 0.0)):
        outcome = solve(recording, policy, delta=delta)
        assert spend(outcome) == ROWS
        assert not outcome.answered_by.any()


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
def test_failed_answers_go_to_the_reference(policy: Policy) -> None:
    _, confidences = informative()
    recording = data(np.zeros(ROWS, dtype=bool), confidences)
    fails = np.arange(ROWS) % 3 == 0
    codes = {**recording.codes, "small": np.where(fails, FAILED, recording.codes["small"])}
    outcome = solve(replace(recording, codes=codes), policy)
    assert (outcome.answered_by[fails] == 0).all()
    assert (outcome.answered_by[~fails] == 1).any()
    everything = {**recording.codes, "small": np.full(ROWS, FAILED, dtype=np.int32)}
    outcome = solve(replace(recording, codes=everything), policy)
    assert not outcome.answered_by.any()
    assert spend(outcome) <= 1.05 * ROWS + 1e-6


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
def test_how_rows_and_answers_are_numbered_plays_no_part(policy: Policy) -> None:
    wrong, confidences = informative()
    rng = np.random.default_rng(5)
    weights = rng.integers(1, 4, ROWS)
    first = data(wrong, np.round(confidences, 1), weights=weights)
    first = replace(
        first,
        models=("large", "small", "other"),
        codes={**first.codes, "other": rng.integers(0, 4, ROWS).astype(np.int32)},
        costs={**first.costs, "other": np.full(ROWS, 0.04)},
        mean_costs={**first.mean_costs, "other": 0.04},
    ).verified({"small": np.full(ROWS, 0.02)})
    mixed = rng.permutation(ROWS)
    renamed = rng.permutation(4)
    second = replace(
        first,
        codes={m: renamed[c][mixed].astype(np.int32) for m, c in first.codes.items()},
        costs={m: c[mixed] for m, c in first.costs.items()},
        confidences={m: c[mixed] for m, c in first.confidences.items()},
        weights=weights[mixed],
        digests=first.digests[mixed],
    )
    for seed in range(3):
        ours, theirs = (solve(r, policy, seed=seed) for r in (first, second))
        assert ours.answered_by[mixed].tolist() == theirs.answered_by.tolist()
        assert spend(ours) == pytest.approx(spend(theirs))


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
def test_verifications_are_charged_where_they_are_looked_at(policy: Policy) -> None:
    wrong, confidences = informative()
    recording = data(wrong, confidences).verified({"small": np.full(ROWS, 0.03)})
    outcome = solve(recording, policy)
    (verifier,) = outcome.profile.problem.verifiers
    looked = outcome.profile.n_asked(verifier.name)
    assert looked > 0
    assert outcome.profile.costs(verifier.name).sum() == pytest.approx(0.03 * looked)
    if not isinstance(policy, AutoMixPOMDP):  # which may accept without a look
        assert looked == outcome.profile.n_asked("small")


# --- labelled rows ------------------------------------------------------------------------------


def test_repeated_prompts_count_as_often_as_their_rows_come_up() -> None:
    population = Population.in_order(np.array([2, 0, 2, 1, 2, 0]), np.array([2, 1, 3]))
    sample = Sample.first(population, 5)
    assert sample.prompts.tolist() == [2, 0, 1]
    assert sample.counts.tolist() == [3, 1, 1]
    assert sample.n_rows == 5


@pytest.mark.parametrize(("rows", "labels"), [(20, 5), (100, 25), (1000, 100), (90_000, 500)])
def test_labels_are_a_tenth_of_the_rows_within_limits(rows: int, labels: int) -> None:
    problem = data(np.zeros(rows, dtype=bool)).problem(Requirement(0.1, 0.95), 0)
    assert labelled_rows(problem) == labels


def test_tiers_are_the_cheaper_candidates_by_price_with_their_verifiers() -> None:
    recording = Recording.of(
        {m: np.zeros(20) for m in ("large", "a", "b", "dear")},
        {"large": 1.0, "a": 0.3, "b": 0.2, "dear": 1.0},
        confidences={"b": np.ones(20)},
    ).verified({"b": np.full(20, 0.2)})
    ladder, notes = tiers(recording.problem(Requirement(0.1, 0.95), 0))
    assert [(t.model.name, t.position) for t in ladder] == [("a", 1), ("b", 2)]
    assert ladder[1].verifier is not None
    assert ladder[1].expected_cost == 0.4
    assert notes == ["dear was not used: it costs as much as the reference."]


def test_models_that_need_training_are_left_out() -> None:
    problem = data(np.zeros(ROWS, dtype=bool)).problem(Requirement(0.1, 0.95), 0)
    taught = Candidate("taught", 0.01, learns=True)
    ladder, notes = tiers(replace(problem, candidates=(*problem.candidates, taught)))
    assert [tier.model.name for tier in ladder] == ["small"]
    assert notes == ["taught was not used: cascades do not train."]


def test_of_several_candidates_the_one_whose_cascade_is_cheapest_is_chosen() -> None:
    rng = np.random.default_rng(1)
    wrong, confidences = informative(1000)
    labels = np.arange(1000) % 4
    recording = Recording.of(
        {
            "large": labels,
            "guess": rng.integers(0, 4, 1000),
            "good": np.where(wrong, (labels + 1) % 4, labels),
            "dear": labels,
        },
        {"large": 1.0, "guess": 0.01, "good": 0.05, "dear": 0.9},
        confidences={"guess": rng.random(1000), "good": confidences},
    )
    for policy in POLICIES[:-1]:
        outcome = solve(recording, policy)
        assert outcome.profile.n_asked("good") >= 900
        assert outcome.profile.n_asked("guess") == 50
        assert outcome.profile.n_asked("dear") == 0


# --- thresholds ---------------------------------------------------------------------------------


def test_thresholds_are_the_lowest_that_keep_the_promise_on_the_labels() -> None:
    scores = [0.9, 0.8, 0.7, 0.6, 0.5]
    labels = facts(scores, [0, 0, 1, 0, 1])
    # of all five rows one may be wrong; of the kept rows a fifth may
    assert lowest(labels, 0.2).least == 0.6
    assert lowest_precise(labels, 0.2).least == 0.8
    assert lowest(labels, 0.4).least == 0.5
    assert lowest(labels, 0.1).least == 0.8


def test_equal_confidences_stay_together_and_rows_count() -> None:
    labels = facts([0.9, 0.9, 0.8], [0, 1, 0], counts=[8, 1, 1])
    assert lowest(labels, 0.05).least == np.inf
    assert lowest(labels, 0.1).least == 0.8
    assert not lowest(labels, 0.05).keeps(labels.scores).any()


def test_answers_without_confidence_come_last_and_failed_ones_do_not_count() -> None:
    labels = facts([0.9, -np.inf, -np.inf], [0, 1, 0])
    assert lowest(labels, 0.1).least == 0.9
    assert lowest(labels, 0.4).keeps(np.array([-np.inf])).all()
    failed = facts([0.9, 0.8], [0, 0], usable=np.array([True, False]))
    assert lowest(failed, 0.1).least == 0.9
    nothing = facts([0.9], [0], usable=np.array([False]))
    assert lowest(nothing, 0.5).least == np.inf
    assert nothing.cost(np.array([True])) == 1.1


def test_a_learned_threshold_breaks_the_promise_far_more_often_than_a_proven_one() -> None:
    """What the absence of a guarantee risks: errors end above the allowance in many orders."""
    wrong, confidences = informative(1000)
    recording = data(wrong, confidences)
    broken = {
        policy.name: sum(
            wrong_rows(recording, solve(recording, policy, seed=seed)) > 100 for seed in range(60)
        )
        for policy in (Threshold(), Bargain())
    }
    assert broken["threshold"] >= 10
    assert broken["bargain"] <= 8


def test_a_given_threshold_is_used_without_labels() -> None:
    wrong, confidences = informative()
    recording = data(wrong, confidences)
    outcome = solve(recording, DataShunt(0.5))
    assert (outcome.answered_by == (confidences >= 0.5)).all()
    assert outcome.plan.pilot_rows == 0
    assert spend(outcome) == pytest.approx((confidences < 0.5).sum() + 0.05 * ROWS)
    with pytest.raises(ParameterError, match=r"the threshold of data-shunt is 1\.5"):
        DataShunt(1.5)


# --- routers ------------------------------------------------------------------------------------


def test_bins_hold_equally_many_rows_and_the_lowest_those_without_confidence() -> None:
    scores = np.arange(80) / 80
    bins = Bins.of(scores, np.ones(80, dtype=np.int64))
    assert np.bincount(bins.place(scores), minlength=BINS + 1).tolist() == [0] + [10] * 8
    assert bins.place(np.array([-np.inf, -5.0, 5.0])).tolist() == [0, 1, BINS]
    saturated = Bins.of(np.ones(20), np.ones(20, dtype=np.int64))
    assert saturated.place(np.array([0.9, 1.0])).tolist() == [1, 2]
    nothing = Bins.of(np.array([-np.inf]), np.array([3]))
    assert nothing.place(np.array([-np.inf, 0.3])).tolist() == [0, 1]


def test_families_of_routers_are_the_published_ones() -> None:
    assert [int(m.sum()) for m in threshold_maps()] == list(range(BINS + 2))
    doubles = double_threshold_maps()
    assert len(doubles) == BINS * (BINS + 1) // 2
    assert all(np.abs(np.diff(m.astype(int))).sum() <= 2 for m in doubles)
    needy = np.array([1.0, 0.5, 0.2, 0.0])
    # retry where 100 is less than the price of an error times its probability
    assert sorted(m.tolist() for m in reward_maps(needy)) == [
        [False, False, False, False],
        [True, False, False, False],
        [True, True, False, False],
        [True, True, True, False],
    ]
    greedy = greedy_maps(np.array([0.9, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.8]))
    assert [int(m.sum()) for m in greedy] == list(range(1, 10))
    assert greedy[0].tolist() == [True] + [False] * 8


def test_routers_reach_the_wanted_agreement_on_the_labels_at_the_least_cost() -> None:
    wrong, scores = informative(400)
    labels = facts(scores.tolist(), wrong.tolist())
    for delta in (0.01, 0.05, 0.1, 0.3):
        chosen = train_threshold(labels, delta)
        kept = chosen.keeps(labels.scores)
        assert labels.errors(kept) <= delta * 400
        wider = chosen.retries.copy()
        if wider.any():
            wider[np.flatnonzero(wider)[-1]] = False  # one bin fewer would have been too many
            assert labels.errors(~wider[chosen.bins.place(labels.scores)]) > delta * 400
        union = train_simple(labels, delta)
        assert labels.errors(union.keeps(labels.scores)) <= delta * 400
        assert labels.cost(union.keeps(labels.scores)) <= labels.cost(kept)


def test_routers_find_errors_that_are_surest_of_themselves() -> None:
    wrong, scores = informative(400)
    inverted = facts((1.0 - scores).tolist(), wrong.tolist())
    union = train_simple(inverted, 0.05)
    kept = union.keeps(inverted.scores)
    assert inverted.errors(kept) <= 20
    assert inverted.cost(kept) < inverted.cost(train_threshold(inverted, 0.05).keeps(1.0 - scores))
