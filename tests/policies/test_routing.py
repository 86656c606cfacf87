from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from smartsql.executor import Outcome, run
from smartsql.policies.certified import Certified
from smartsql.policies.routing.certificate import recheck_routing
from smartsql.policies.routing.evidence import evidence, ranks
from smartsql.policies.routing.plan import lay_out, plan
from smartsql.policies.routing.predictor import fit, prices, rates
from smartsql.policies.routing.tuning import RoutingTuning
from smartsql.profile import Problem, Profile
from smartsql.replay.recording import RecordedSource, Recording
from smartsql.types import FAILED, Ask, FloatArray, Requirement

ALWAYS = Certified(RoutingTuning(exact=0.0, exact_unguided=0.0))
"""Routes even where a plain audit is predicted to be cheaper."""


def recording(
    wrong: np.ndarray,
    confidences: FloatArray | None = None,
    *,
    weights: np.ndarray | None = None,
    cost: float = 0.02,
) -> Recording:
    """A candidate `small` that errs where told, and labels 0 to 3."""
    labels = np.arange(wrong.size) % 4
    answers = np.where(wrong, (labels + 1) % 4, labels)
    known = {} if confidences is None else {"small": confidences}
    return Recording.of(
        {"large": labels, "small": answers},
        {"large": 1.0, "small": cost},
        confidences=known,
        weights=weights,
    )


def solve(data: Recording, seed: int, delta: float = 0.1, policy: Certified = ALWAYS) -> Outcome:
    return run(policy, data.problem(Requirement(delta, 0.95), seed), RecordedSource(data))


def wrong_rows(data: Recording, outcome: Outcome) -> int:
    mine = outcome.answered_by == 1
    return int(data.weights[mine & ~data.agrees("small")].sum())


def spend(outcome: Outcome) -> float:
    problem = outcome.profile.problem
    total = sum(float(outcome.profile.costs(m.name).sum()) for m in problem.models)
    return total / problem.population.n_prompts


def informative(rows: int, errors: int) -> tuple[np.ndarray, FloatArray]:
    """Errors that are likely where confidence is low."""
    rng = np.random.default_rng(rows + errors)
    confidences = rng.random(rows)
    wrong = np.zeros(rows, dtype=bool)
    chance = np.exp(-6.0 * confidences)
    wrong[rng.choice(rows, errors, replace=False, p=chance / chance.sum())] = True
    return wrong, confidences


def worst_case(kind: str, rows: int, errors: int) -> tuple[np.ndarray, FloatArray | None]:
    wrong = np.zeros(rows, dtype=bool)
    confidences = (np.arange(rows) * 7919 % rows) / rows
    if kind == "scattered":
        wrong[np.random.default_rng(5).choice(rows, errors, replace=False)] = True
        return wrong, None
    order = np.argsort(-confidences)
    if kind == "most confident":
        wrong[order[:errors]] = True
    else:  # decoys: half where one learns to look, half where one does not
        wrong[order[-(errors // 2) :]] = True
        wrong[order[: errors - errors // 2]] = True
    return wrong, confidences


@pytest.mark.parametrize("kind", ["scattered", "most confident", "decoys"])
@pytest.mark.parametrize("excess", [1, 12])
def test_the_promise_is_kept_where_errors_hide(kind: str, excess: int) -> None:
    rows, tolerated, runs = 300, 30, 25
    wrong, confidences = worst_case(kind, rows, tolerated + excess)
    data = recording(wrong, confidences)
    broken = sum(wrong_rows(data, solve(data, seed)) > tolerated for seed in range(runs))
    assert broken <= 0.05 * runs + 3 * np.sqrt(0.05 * 0.95 * runs)


def test_confidences_that_tell_errors_save_money_beyond_the_plain_audit() -> None:
    wrong, confidences = informative(1000, 200)
    told = [spend(solve(recording(wrong, confidences), seed)) for seed in range(6)]
    untold = [spend(solve(recording(wrong), seed)) for seed in range(6)]
    assert np.mean(told) < 0.8 * np.mean(untold)


@pytest.mark.parametrize(
    "values",
    [np.nan, np.inf, 0.5, -3.0],
    ids=["unknown", "infinite", "constant", "negative"],
)
def test_useless_confidences_change_nothing(values: float) -> None:
    wrong, _ = informative(400, 30)
    useless = recording(wrong, np.full(400, values))
    assert spend(solve(useless, 2)) == spend(solve(recording(wrong), 2))


def test_inverted_confidences_are_learned() -> None:
    wrong, confidences = informative(1500, 300)
    inverted = [spend(solve(recording(wrong, 1 - confidences), seed)) for seed in range(4)]
    untold = [spend(solve(recording(wrong), seed)) for seed in range(4)]
    assert np.mean(inverted) < np.mean(untold)


def test_failed_answers_go_to_the_reference_and_are_no_errors_of_the_plan() -> None:
    wrong, confidences = informative(400, 20)
    data = recording(wrong, confidences)
    codes = data.codes["small"].copy()
    codes[::10] = FAILED
    data = Recording.of(
        {"large": data.codes["large"], "small": codes},
        {"large": 1.0, "small": 0.02},
        confidences={"small": confidences},
    )
    outcome = solve(data, 1)
    assert (outcome.answered_by[::10] == 0).all()
    assert (outcome.answered_by == 1).sum() > 200
    assert recheck_routing(outcome.plan.certificate) == []


def test_a_prompt_of_many_rows_counts_with_all_of_them() -> None:
    rng = np.random.default_rng(11)
    prompts, runs, broken = 260, 30, 0
    weights = np.where(np.arange(prompts) % 13 == 0, 9, 1)
    wrong = np.zeros(prompts, dtype=bool)
    heavy = np.flatnonzero(weights == 9)
    data = None
    for seed in range(runs):
        wrong[:] = False
        wrong[rng.choice(heavy, 5, replace=False)] = True
        wrong[rng.choice(np.flatnonzero(weights == 1), 8, replace=False)] = True
        data = recording(wrong, weights=weights)
        outcome = solve(data, seed)
        tolerated = outcome.profile.problem.tolerated
        assert int(weights[wrong].sum()) > tolerated  # 53 of 420 rows; 42 may differ
        broken += wrong_rows(data, outcome) > tolerated
    assert broken <= 0.05 * runs + 3 * np.sqrt(0.05 * 0.95 * runs)


def test_a_run_repeats_itself() -> None:
    data = recording(*informative(500, 60))
    first, second = solve(data, 4), solve(data, 4)
    assert first.plan.certificate == second.plan.certificate
    assert (first.answered_by == second.answered_by).all()
    assert first.plan.certificate != solve(data, 5).plan.certificate


def test_a_certificate_can_be_checked_again_and_forgeries_show() -> None:
    outcome = solve(recording(*informative(800, 60)), 3)
    facts = json.loads(json.dumps(outcome.plan.certificate))
    assert facts["deployed"]["proved"] and recheck_routing(facts) == []
    for name, value in (("found", facts["found"] + 3), ("alpha", 0.2), ("tolerated", 90)):
        assert recheck_routing({**facts, name: value})
    first = facts["rounds"][0]
    for change in ({"drawn_wrong": []}, {"stake": 1.0}, {"found": 99}, {"rows": [1] * 40}):
        forged = {**first, "audit": {**first["audit"], **change}}
        assert forged == first or recheck_routing(
            {**facts, "rounds": [forged, *facts["rounds"][1:]]}
        )
    assert recheck_routing({**facts, "rounds": []})
    assert recheck_routing({**facts, "deployed": {**facts["deployed"], "proved": False}})
    assert recheck_routing({"rows": 10})


def changed(facts: dict[str, Any], number: int, **audit: Any) -> dict[str, Any]:
    """The certificate with other facts of the audit of a round."""
    rounds = list(facts["rounds"])
    rounds[number] = {**rounds[number], "audit": {**rounds[number]["audit"], **audit}}
    return {**facts, "rounds": rounds}


def test_no_rows_appear_or_vanish_in_a_certificate() -> None:
    outcome = solve(recording(*informative(800, 60)), 3)
    facts = json.loads(json.dumps(outcome.plan.certificate))
    rounds, groups, rows = facts["rounds"], facts["groups"], facts["deployed"]["rows"]
    last = len(rounds) - 1
    number = next(i for i, r in enumerate(rounds) if "audit" in r)
    audit = rounds[number]["audit"]
    full = {**groups[-1], "deployed": groups[-1]["deployed"] + 5, "rows": groups[-1]["rows"] + 5}
    more = {**facts["deployed"], "rows": rows + 5}
    forgeries = [
        {**facts, "deployed": more},
        {**facts, "deployed": more, "groups": [*groups[:-1], full]},
        {**facts, "deployed": {**facts["deployed"], "rows": float("nan")}},
        {**facts, "deployed": {**facts["deployed"], "model": "large"}},
        {**facts, "rounds": rounds[:last]},
        {**facts, "rounds": rounds[1:]},
        {**facts, "rounds": [*rounds, rounds[last]]},
        {**facts, "escalated": facts["escalated"] + 1},
        {**facts, "version": facts["version"] + 1},
        {**facts, "gamma": float("nan"), "alpha": float("nan")},
        {**facts, "plan": {"answers": [{**facts["plan"]["answers"][0], "deployed": 0}]}},
        # all draws from a bin with a single row
        changed(facts, number, drawn_bins=[0] * len(audit["drawn_bins"]), rows=[1] * 40),
        changed(facts, number, weights=[-w for w in audit["weights"]]),
        changed(facts, number, rates=[1.5, *audit["rates"][1:]]),
        changed(facts, number, drawn_rows=[[-1, len(audit["drawn_bins"])]]),
        changed(facts, number, rows=[audit["rows"][0] + 50, *audit["rows"][1:]]),
        changed(facts, number, stake=7.0),
        changed(facts, number, series=0),
    ]
    assert recheck_routing(facts) == []
    assert all(recheck_routing(forged) for forged in forgeries)


@dataclass(frozen=True)
class Listening(RecordedSource):
    """A source that keeps who was asked what, in order."""

    asked: list[Ask] = field(default_factory=list)

    def fulfil(self, asks: Sequence[Ask], profile: Profile) -> None:
        self.asked.extend(asks)
        super().fulfil(asks, profile)


def test_who_answers_what_is_fixed_before_the_first_draw() -> None:
    wrong, confidences = informative(900, 150)
    data = recording(wrong, confidences)
    source = Listening(data)
    outcome = run(ALWAYS, data.problem(Requirement(0.1, 0.95), 1), source)
    names = [ask.model for ask in source.asked]
    begun = len(names) - 1 - names[::-1].index("small")
    assert outcome.plan.certificate["deployed"]["proved"]
    before = np.concatenate([a.prompts for a in source.asked[:begun] if a.model == "large"])
    assert before.size == outcome.plan.certificate["pilot_rows"]
    # the audit and all that follows ask nobody but the reference, and no row twice
    later = np.concatenate([a.prompts for a in source.asked[begun + 1 :]])
    assert set(names[begun + 1 :]) == {"large"}
    assert np.unique(np.concatenate([before, later])).size == before.size + later.size
    assert (outcome.answered_by[later] == 0).all() and (outcome.answered_by[before] == 0).all()


def test_nothing_is_routed_where_nothing_may_differ() -> None:
    data = recording(np.zeros(100, dtype=bool))
    assert (solve(data, 0, delta=0.0).answered_by == 0).all()
    dear = recording(np.zeros(100, dtype=bool), cost=1.5)
    assert spend(solve(dear, 0)) == 1.0


def test_a_hopeless_candidate_costs_little_more_than_the_reference() -> None:
    data = recording(np.arange(600) % 10 < 9)
    costs = [spend(solve(data, seed, delta=0.05)) for seed in range(5)]
    assert max(costs) < 1.03


def test_two_thousand_rows_are_decided_in_few_rounds() -> None:
    outcome = solve(recording(*informative(2000, 250)), 0)
    assert outcome.rounds <= 36


# ---- parts


def test_predictions_follow_the_labels_and_stay_inside_their_range() -> None:
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(4000), rng.normal(size=4000)])
    y = (rng.random(4000) < 1 / (1 + np.exp(2 - 1.5 * x[:, 1]))).astype(float)
    beta = fit(x, y, np.array([-1.5, 0.0]), np.array([0.25, 2.0]))
    np.testing.assert_allclose(beta, [-2.0, 1.5], atol=0.15)
    assert rates(np.array([[1.0, 50.0], [1.0, -50.0]]), beta).tolist() == [0.98, 0.004]


def test_prices_follow_the_other_models_and_are_flat_where_those_say_nothing() -> None:
    own = np.array([1.0, 2.0, 3.0, 4.0] * 10)
    line = prices(own, own, 2.0 * own)
    assert line.mean() == pytest.approx(1.0)
    assert line[3] / line[0] == pytest.approx(4.0, rel=0.15)
    assert (prices(np.ones(5), np.ones(5), np.arange(5.0)) == 1.0).all()


def test_equal_values_share_their_rank() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == pytest.approx(
        [2.5 / 3, 0.0, 2.5 / 3, 1 / 3]
    )


def test_evidence_is_standardised_and_finite() -> None:
    wrong, confidences = informative(300, 40)
    confidences[:20] = np.nan
    data = recording(wrong, confidences)
    problem: Problem = data.problem(Requirement(0.1, 0.95), 0)
    outcome = run(ALWAYS, problem, RecordedSource(data))
    columns = evidence(outcome.profile, "small", (), np.arange(300))
    assert np.isfinite(columns.x).all() and len(columns.names) == columns.x.shape[1]
    np.testing.assert_allclose(columns.x[:, 1:].mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(columns.x[:, 1:].std(axis=0), 1.0)


def test_a_plan_escalates_what_is_wrong_and_closes_where_nothing_can_be_proved() -> None:
    p = np.where(np.arange(1000) < 200, 0.9, 0.01)
    layout = lay_out(p, np.ones(1000), np.ones(1000), 20)
    outline = plan(layout, 50, 0.0, None, 3.0)
    assert 3 <= outline.escalated <= 4 and not outline.closes
    assert 150 < outline.cost < 400
    same = lay_out(np.full(1000, 0.5), np.ones(1000), np.ones(1000), 20)
    closing = plan(same, 100, 0.0, None, 200.0)
    assert closing.closes and closing.cost == pytest.approx(900.0)
