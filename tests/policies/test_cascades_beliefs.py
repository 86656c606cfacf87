"""The ladder as a decision problem: solved exactly, learned from labels, walked by all rows."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from smartsql.executor import Outcome, run
from smartsql.policies.cascades.beliefs import (
    ACCEPT,
    GO,
    VERIFY,
    Noise,
    Rung,
    Solution,
    learn_prior,
    states,
    updated,
)
from smartsql.policies.cascades.pomdp import AutoMixPOMDP
from smartsql.policies.cascades.routers import BINS, Bins
from smartsql.replay.recording import RecordedSource, Recording
from smartsql.types import Requirement


def noise(right: float, wrong: float, bits: np.ndarray, price: float = 0.0) -> Noise:
    """Two bins; the upper one comes with these chances for right and for wrong answers."""
    table = np.zeros((2, BINS + 1))
    table[:, 1] = [1.0 - wrong, 1.0 - right]
    table[:, 2] = [wrong, right]
    return Noise(Bins(np.array([0.5])), table[bits.astype(int)], price)


def test_states_are_the_sets_of_rungs_that_are_right() -> None:
    assert states(2).astype(int).tolist() == [[0, 1, 0, 1], [0, 0, 1, 1]]
    agrees = np.array([[True, True, False], [False, True, False]])
    prior = learn_prior(agrees, np.array([4, 2, 3]))
    assert prior * 10 == pytest.approx(np.array([3, 4, 0, 2]) + 0.25)


@pytest.mark.parametrize("penalty", [1.5, 4.0, 20.0])
@pytest.mark.parametrize("price", [0.02, 0.2])
def test_the_solution_is_the_best_of_all_decision_trees(penalty: float, price: float) -> None:
    """One rung with a confidence and a verification: every deterministic policy is tried."""
    bits = states(1)[0]
    rung = Rung(0.1, bits, noise(0.8, 0.3, bits), noise(0.9, 0.2, bits, price))
    prior = np.array([0.35, 0.65])
    assert rung.own is not None
    assert rung.verification is not None
    own, check = rung.own.likelihood[:, 1:3], rung.verification.likelihood[:, 1:3]
    best = 1.0  # the reference at once
    for first in product(("accept", "verify", "reference"), repeat=2):
        for then in product((True, False), repeat=4):
            cost = 0.1
            for state, seen in product(range(2), range(2)):
                chance = prior[state] * own[state, seen]
                wrong = penalty * (state == 0)
                if first[seen] == "accept":
                    cost += chance * wrong
                elif first[seen] == "reference":
                    cost += chance
                else:
                    for verdict in range(2):
                        end = wrong if then[2 * seen + verdict] else 1.0
                        cost += chance * check[state, verdict] * (price + end)
            best = min(best, cost)
    actions, costs = Solution(prior, [rung], penalty).decide(prior[None, :], -1, verifiable=False)
    assert costs[0] == pytest.approx(best)
    assert actions[0] == (GO if best < 1.0 else GO + 1)


def test_what_is_bought_pays() -> None:
    bits = states(1)[0]
    sharp = Rung(0.1, bits, None, noise(0.99, 0.01, bits, 0.05))
    dear = Rung(0.1, bits, None, noise(0.99, 0.01, bits, 2.0))
    prior = np.array([0.3, 0.7])

    def after_the_answer(rung: Rung, penalty: float, belief: np.ndarray) -> int:
        solution = Solution(prior, [rung], penalty)
        return int(solution.decide(belief[None, :], 0, verifiable=True)[0][0])

    assert after_the_answer(sharp, 10.0, prior) == VERIFY
    assert after_the_answer(dear, 10.0, prior) == GO + 1
    assert after_the_answer(sharp, 10.0, np.array([0.0, 1.0])) == ACCEPT
    assert after_the_answer(sharp, 10.0, np.array([1.0, 0.0])) == GO + 1
    assert after_the_answer(sharp, 0.1, prior) == ACCEPT


def test_a_rung_that_is_right_where_the_other_is_not_is_asked_next() -> None:
    first, second = states(2)
    rungs = [Rung(0.05, first, noise(0.9, 0.1, first)), Rung(0.2, second)]
    # one of the two is right, whatever the question
    prior = np.array([0.0, 0.5, 0.5, 0.0]) + 1e-9
    solution = Solution(prior / prior.sum(), rungs, 5.0)
    doubtful = updated(solution.start(), rungs[0].own, np.array([1]))  # type: ignore[arg-type]
    assert doubtful[0, 2] == pytest.approx(0.9)
    actions, _ = solution.decide(solution.start(), -1, verifiable=False)
    assert actions[0] == GO
    surely_wrong = np.array([[0.0, 0.0, 1.0, 0.0]])
    assert solution.decide(surely_wrong, 0, verifiable=False)[0][0] == GO + 1


def test_beliefs_follow_bayes() -> None:
    bits = states(1)[0]
    seen = noise(0.8, 0.3, bits)
    after = updated(np.array([[0.5, 0.5], [0.5, 0.5]]), seen, np.array([2, 1]))
    assert after[0] == pytest.approx([0.3 / 1.1, 0.8 / 1.1])
    assert after[1] == pytest.approx([0.7 / 0.9, 0.2 / 0.9])


def test_noise_is_learned_and_nothing_is_impossible() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(5000) < 0.7
    scores = np.where(right, 0.5, 0.0) + rng.random(5000) / 2
    bits = states(1)[0]
    learned = Noise.learn(scores, right, np.ones(5000, dtype=np.int64), bits)
    assert (learned.likelihood > 0.0).all()
    assert learned.likelihood.sum(axis=1) == pytest.approx([1.0, 1.0])
    # right answers are in the upper bins
    upper = learned.likelihood[:, 4:].sum(axis=1)
    assert upper[0] < 0.1
    assert upper[1] > 0.85


# --- the strategy -------------------------------------------------------------------------------


def ladder(rows: int = 1500, *, verified: float | None = None) -> Recording:
    """Three models, each right where the cheaper one is and on some more, with confidences."""
    rng = np.random.default_rng(4)
    hard = rng.random(rows)
    codes = {"large": np.zeros(rows)}
    confidences = {}
    for name, skill in (("small", 0.6), ("middle", 0.8), ("useless", 0.3)):
        codes[name] = (hard > skill).astype(int)
        confidences[name] = np.clip(0.5 + skill - hard + rng.normal(0, 0.1, rows), 0.0, 1.0)
    recording = Recording.of(
        codes, {"large": 1.0, "small": 0.05, "middle": 0.2, "useless": 0.1}, confidences=confidences
    )
    if verified is None:
        return recording
    return recording.verified({m: np.full(rows, verified) for m in confidences})


def solve(recording: Recording, delta: float = 0.1, seed: int = 0) -> Outcome:
    problem = recording.problem(Requirement(delta, 0.95), seed)
    return run(AutoMixPOMDP(), problem, RecordedSource(recording))


def test_rungs_are_the_candidates_that_agree_more_than_cheaper_ones() -> None:
    outcome = solve(ladder())
    assert outcome.plan.certificate["models"] == ["small", "middle"]
    assert outcome.profile.n_asked("useless") == 50
    assert set(np.unique(outcome.answered_by)) == {0, 1, 2}


def test_the_ladder_costs_less_than_its_first_rung_with_the_reference() -> None:
    """Asked where the small model is unsure, the middle one spares calls of the reference."""
    recording = ladder()
    whole = np.mean([_cost(solve(recording, seed=s)) for s in range(4)])
    single = Recording.of(
        {m: recording.codes[m] for m in ("large", "small")},
        {"large": 1.0, "small": 0.05},
        confidences={"small": recording.confidences["small"]},
    )
    alone = np.mean([_cost(solve(single, seed=s)) for s in range(4)])
    assert whole < alone < 1.0


def test_verification_is_bought_where_it_pays_and_not_where_it_is_dear() -> None:
    cheap = solve(ladder(verified=0.01))
    dear = solve(ladder(verified=0.9))
    assert cheap.profile.n_asked("small verification") > 1000
    # the labelled rows teach what a look is worth: nothing beyond them is bought
    labelled = dear.plan.pilot_rows
    assert dear.profile.n_asked("middle verification") <= labelled
    assert dear.profile.n_asked("small verification") <= labelled


def test_waves_are_as_many_as_the_ladder_has_steps() -> None:
    outcome = solve(ladder(verified=0.01))
    # a probe, the labels with their verifications, then an answer and a look for each rung
    assert outcome.rounds <= 3 + 2 * 3 + 1


def _cost(outcome: Outcome) -> float:
    problem = outcome.profile.problem
    paid = sum(float(outcome.profile.costs(m.name).sum()) for m in problem.callable)
    return paid / problem.population.n_prompts
