from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from smartsql import solver
from smartsql.executor import Outcome, run
from smartsql.policies.certified import Certified
from smartsql.policies.routing.certificate import recheck_routing
from smartsql.policies.routing.tuning import RoutingTuning
from smartsql.profile import Problem, Profile
from smartsql.replay.recording import RecordedSource, Recording
from smartsql.types import FAILED, Ask, Candidate, FloatArray, Requirement

LABELS = 4
ROUTES = Certified(RoutingTuning(exact=0.0, exact_unguided=0.0))
"""Routes even where a plain audit is predicted to be cheaper."""


def answers(wrong: np.ndarray) -> np.ndarray:
    labels = np.arange(wrong.size) % LABELS
    return np.where(wrong, (labels + 1) % LABELS, labels)


def risky(rows: int, rate: float, seed: int = 0) -> tuple[np.ndarray, FloatArray]:
    """Errors at the given rate, most of them where the confidence is low."""
    rng = np.random.default_rng(seed)
    confidence = rng.random(rows)
    chance = np.minimum(1.0, rate * 5.0 * np.exp(-5.0 * confidence))
    return rng.random(rows) < chance, confidence


def recording(
    models: dict[str, tuple[np.ndarray, float]],
    confidences: dict[str, FloatArray] | None = None,
    weights: np.ndarray | None = None,
) -> Recording:
    """Models by name with where they are wrong and their price; the reference costs 1."""
    rows = next(iter(models.values()))[0].size
    codes = {name: answers(wrong) for name, (wrong, _) in models.items()}
    prices = {name: price for name, (_, price) in models.items()}
    return Recording.of(
        {"large": np.arange(rows) % LABELS, **codes},
        {"large": 1.0, **prices},
        confidences=confidences,
        weights=weights,
    )


def solve(data: Recording, seed: int, delta: float = 0.1, policy: Certified = ROUTES) -> Outcome:
    return run(policy, data.problem(Requirement(delta, 0.95), seed), RecordedSource(data))


def spend(outcome: Outcome) -> float:
    problem = outcome.profile.problem
    total = sum(float(outcome.profile.costs(m.name).sum()) for m in problem.callable)
    return total / problem.population.n_prompts


def wrong_rows(data: Recording, outcome: Outcome) -> int:
    wrong = 0
    for position, model in enumerate(outcome.profile.problem.candidates, start=1):
        mine = outcome.answered_by == position
        wrong += int(data.weights[mine & ~data.agrees(model.name)].sum())
    return wrong


def facts(outcome: Outcome) -> dict[str, object]:
    return dict(json.loads(json.dumps(outcome.plan.certificate)))


# ---- different primaries for different rows


def two_tiers(rows: int = 1200, seed: int = 1) -> Recording:
    """A free candidate that knows where it errs, and a dearer one that hardly errs."""
    wrong, confidence = risky(rows, 0.3, seed)
    rarely = np.random.default_rng(seed + 1).random(rows) < 0.04
    return recording(
        {"free": (wrong, 1e-6), "middle": (rarely, 0.2)}, confidences={"free": confidence}
    )


def ladder(outcome: Outcome) -> list[str]:
    plan = outcome.plan.certificate.get("plan", {"answers": []})
    return [part["model"] for part in plan["answers"]]


def test_a_second_candidate_answers_what_the_first_likely_has_wrong_and_that_saves() -> None:
    data = two_tiers()
    alone = replace(data, models=("large", "free"))
    outcomes = [solve(data, seed, delta=0.05) for seed in range(6)]
    assert sum(ladder(outcome) == ["free", "middle"] for outcome in outcomes) >= 4
    saved = np.mean([spend(solve(alone, seed, delta=0.05)) for seed in range(6)])
    assert np.mean([spend(outcome) for outcome in outcomes]) < 0.9 * saved


def test_rows_carry_the_answers_that_the_plan_names() -> None:
    data = two_tiers()
    outcome = next(
        o for o in (solve(data, seed, delta=0.05) for seed in range(6)) if len(ladder(o)) == 2
    )
    known = facts(outcome)
    plan = known["plan"]
    assert isinstance(plan, dict) and recheck_routing(known) == []
    first, second = (np.flatnonzero(outcome.answered_by == k) for k in (1, 2))
    assert first.size > 0 and second.size > 0
    assert [part["deployed"] for part in plan["answers"]] == [first.size, second.size]
    # whoever is passed on is riskier than whoever is accepted
    risks = {
        course: [g["risk"] for g in plan["groups"] if g["course"] == course]
        for course in ("accept", "ask second")
    }
    assert min(risks["ask second"]) > np.mean(risks["accept"])
    groups = sum(g["prompts"] for g in plan["groups"])
    assert groups == sum(part["prompts"] for part in plan["answers"])


def test_the_promise_is_kept_with_two_candidates_at_its_boundary() -> None:
    rows, runs, broken, ladders = 300, 30, 0, 0
    for seed in range(runs):
        wrong, confidence = risky(rows, 0.25, seed)
        rng = np.random.default_rng(seed)
        second = np.zeros(rows, dtype=bool)
        # the second one fails where the first one's confidence is highest or lowest
        second[np.argsort(confidence)[:8]] = True
        wrong[rng.choice(np.flatnonzero(confidence > 0.8), 9, replace=False)] = True
        data = recording(
            {"free": (wrong, 1e-6), "middle": (second, 0.1)}, confidences={"free": confidence}
        )
        outcome = solve(data, seed, delta=0.05)
        ladders += len(ladder(outcome)) == 2
        broken += wrong_rows(data, outcome) > outcome.profile.problem.tolerated
    assert ladders > 5
    assert broken <= 0.05 * runs + 3 * np.sqrt(0.05 * 0.95 * runs)


def test_a_failed_solve_leaves_one_primary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "_solve", lambda *_: None)
    outcome = solve(two_tiers(), 0, delta=0.05)
    assert len(ladder(outcome)) <= 1
    assert spend(outcome) < 1.0


# ---- verifiers


def verified(rows: int = 1500, price: float = 0.05) -> Recording:
    wrong, confidence = risky(rows, 0.3, 7)
    data = recording({"small": (wrong, 0.05)}, confidences={"small": confidence})
    return data.verified({"small": np.full(rows, price)})


def test_a_verifier_is_asked_where_its_confidence_saves_more_than_it_costs() -> None:
    data = verified()
    outcomes = [solve(data, seed) for seed in range(4)]
    assert all(o.plan.certificate["helpers"] == ["small verification"] for o in outcomes)
    without = replace(data, verifies={})
    saved = np.mean([spend(solve(without, seed)) for seed in range(4)])
    assert np.mean([spend(o) for o in outcomes]) < 0.9 * saved


def test_a_dear_verifier_is_left_alone() -> None:
    outcome = solve(verified(price=0.9), 1)
    assert outcome.profile.n_asked("small verification") == 0


# ---- candidates that learn


@dataclass
class Learning:
    """A source with a candidate whose answers are right with what it was trained on.

    It knows a rule for three quarters of the rows once it saw enough labels.
    """

    data: Recording
    trained: list[int] = field(default_factory=list)

    def fulfil(self, asks: Sequence[Ask], profile: Profile) -> None:
        known = np.flatnonzero(profile.codes("large") >= 0)
        for ask in asks:
            codes = self.data.codes[ask.model][ask.prompts]
            cost = self.data.costs[ask.model][ask.prompts]
            if ask.fit:
                assert not np.isin(ask.prompts, known).any()  # nothing it was trained on
                self.trained.append(known.size)
                if known.size < 30:
                    codes = np.zeros_like(codes)
            profile.record(ask.model, ask.prompts, codes, cost, self.confidences(ask))

    def confidences(self, ask: Ask) -> FloatArray | None:
        known = self.data.confidences.get(ask.model)
        return None if known is None else known[ask.prompts]

    def problem(self, seed: int) -> Problem:
        problem = self.data.problem(Requirement(0.1, 0.95), seed)
        learning = tuple(
            Candidate(m.name, m.expected_cost, learns=m.name == "pupil") for m in problem.candidates
        )
        return replace(problem, candidates=learning)


def test_a_candidate_that_learned_from_paid_answers_routes_with_the_others() -> None:
    rows = 2000
    hard = np.arange(rows) % 4 == 0
    rng = np.random.default_rng(3)
    pupil = (rng.random(rows) < np.where(hard, 0.7, 0.02)).astype(bool)
    sure = np.where(hard, 0.3, 0.9) + 0.05 * rng.random(rows)
    small = rng.random(rows) < 0.3
    data = recording({"pupil": (pupil, 0.0), "small": (small, 0.05)}, confidences={"pupil": sure})
    with_pupil, without = [], []
    for seed in range(4):
        source = Learning(data)
        outcome = run(ROUTES, source.problem(seed), source)
        with_pupil.append(spend(outcome))
        assert 1 <= len(source.trained) <= 2
        certificate = outcome.plan.certificate
        assert "pupil" in (certificate["primary"], *certificate["helpers"])
        assert recheck_routing(facts(outcome)) == []
        without.append(spend(solve(replace(data, models=("large", "small")), seed)))
    assert np.mean(with_pupil) < 0.8 * np.mean(without)


# ---- unhappy inputs


@pytest.mark.parametrize("kind", ["missing", "constant", "inverted", "adversarial", "some"])
def test_odd_confidences_cost_money_at_most(kind: str) -> None:
    runs, broken, costs = 20, 0, []
    for seed in range(runs):
        wrong, confidence = risky(500, 0.12, seed)
        given = {
            "missing": np.full(500, np.nan),
            "constant": np.full(500, 0.5),
            "inverted": 1.0 - confidence,
            "adversarial": np.where(wrong, 1.0, confidence),
            "some": np.where(np.arange(500) % 3 == 0, np.nan, confidence),
        }[kind]
        data = recording({"small": (wrong, 0.03)}, confidences={"small": given})
        outcome = solve(data, seed, policy=Certified())
        broken += wrong_rows(data, outcome) > outcome.profile.problem.tolerated
        costs.append(spend(outcome))
    assert broken <= 0.05 * runs + 3 * np.sqrt(0.05 * 0.95 * runs)
    assert np.mean(costs) < 0.95 and max(costs) < 1.05


def test_candidates_that_fail_on_some_or_all_rows_only_cost_money() -> None:
    wrong, confidence = risky(800, 0.2, 2)
    for share in (0.3, 1.0):
        data = two_tiers(800)
        fails = np.random.default_rng(4).random(800) < share
        codes = {
            name: np.where(fails & (name != "large"), FAILED, codes).astype(np.int32)
            for name, codes in data.codes.items()
        }
        failing = replace(data, codes=codes)
        outcome = solve(failing, 0, policy=Certified())
        assert spend(outcome) < 1.03
        assert (outcome.answered_by[fails] == 0).all()
    assert wrong.any() and confidence.any()


def test_a_prompt_of_many_rows_keeps_its_weight_under_two_candidates() -> None:
    weights = np.where(np.arange(400) % 20 == 0, 12, 1)
    runs, broken = 20, 0
    for seed in range(runs):
        wrong, confidence = risky(400, 0.3, seed)
        second = np.random.default_rng(seed).random(400) < 0.05
        data = recording(
            {"free": (wrong, 1e-6), "middle": (second, 0.15)},
            confidences={"free": confidence},
            weights=weights,
        )
        outcome = solve(data, seed, delta=0.08)
        broken += wrong_rows(data, outcome) > outcome.profile.problem.tolerated
    assert broken <= 0.05 * runs + 3 * np.sqrt(0.05 * 0.95 * runs)


@pytest.mark.parametrize("rows", [1, 13, 41, 60])
def test_small_tables_hardly_cost_more_than_the_reference(rows: int) -> None:
    for seed in range(5):
        wrong, confidence = risky(rows, 0.4, seed)
        data = recording({"small": (wrong, 0.05)}, confidences={"small": confidence})
        assert spend(solve(data, seed, policy=Certified())) <= 1.02


def test_where_nothing_tells_rows_apart_the_plain_audit_takes_over() -> None:
    wrong = np.random.default_rng(0).random(1500) < 0.05
    outcome = solve(recording({"small": (wrong, 0.05)}), 0, policy=Certified())
    assert outcome.plan.certificate["procedure"] == "exact"
    assert outcome.plan.pilot_rows <= 60
