"""What `certified` does with candidates of every kind, and with rows that share a prompt."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from smartsql.executor import run
from smartsql.policies.exact.exact import Exact
from smartsql.policies.recheck import recheck
from smartsql.population import Population
from smartsql.types import FAILED, IntArray
from tests.policies.tables import (
    REFERENCE,
    Table,
    cost_ratio,
    digests,
    shuffled,
    solve,
    table,
    wrong_at,
    wrong_rows,
)


def some_errors(rows: int, share: float, seed: int = 0) -> IntArray:
    errors = round(rows * share)
    return wrong_at(np.random.default_rng(seed).choice(rows, errors, False), rows=rows)


def heavy(prompts: int, weight: int, seed: int) -> Population:
    """Each prompt stands in `weight` rows."""
    return Population.shuffled(digests(prompts), np.full(prompts, weight), seed)


# ---- candidates


def test_a_candidate_that_always_agrees_answers_nearly_all() -> None:
    data = table(2000, cheap=(0.03, np.zeros(2000)))
    outcome = solve(data, 0.1, shuffled(2000, 1))
    assert cost_ratio(outcome) < 0.07
    assert wrong_rows(data, outcome) == 0
    assert outcome.plan.bound == pytest.approx(0.1)


def test_candidates_that_never_agree_get_no_more_than_the_tolerated_rows() -> None:
    data = table(1000, cheap=(0.03, np.ones(1000)), other=(0.05, np.ones(1000)))
    for seed in range(20):
        outcome = solve(data, 0.05, shuffled(1000, seed))
        assert wrong_rows(data, outcome) <= 50
        assert cost_ratio(outcome) < 1.0
        assert outcome.plan.certificate["tests"] == []


def test_a_candidate_that_always_fails_is_given_up_and_answers_nothing() -> None:
    data = table(1000, broken=(0.03, np.full(1000, FAILED)))
    outcome = solve(data, 0.05, shuffled(1000, 3))
    assert (outcome.answered_by == 0).all()
    assert cost_ratio(outcome) < 1.02
    assert any("broken was dropped" in note for note in outcome.plan.notes)


def test_failures_of_a_deployed_candidate_go_to_the_reference() -> None:
    codes = np.zeros(2000, dtype=np.int64)
    codes[::50] = FAILED
    data = table(2000, cheap=(0.03, codes))
    outcome = solve(data, 0.1, shuffled(2000, 3))
    assert (outcome.answered_by[::50] == 0).all()
    assert (outcome.answered_by == 1).sum() > 1500


def test_a_candidate_as_dear_as_the_reference_is_never_asked_and_said_so() -> None:
    data = table(500, dear=(1.0, np.zeros(500)), cheap=(0.1, np.zeros(500)))
    outcome = solve(data, 0.1, shuffled(500, 0))
    assert outcome.profile.n_asked("dear") == 0
    assert any("dear was not used" in note for note in outcome.plan.notes)
    assert (outcome.answered_by == 2).any()


def test_a_candidate_that_turns_out_dear_is_dropped_after_the_pilot() -> None:
    data = table(2000, posing=(1.5, np.zeros(2000)))
    data.expected = {"posing": 0.1}
    outcome = solve(data, 0.1, shuffled(2000, 0))
    assert (outcome.answered_by == 0).all()
    assert any("posing was not used" in note for note in outcome.plan.notes)
    assert outcome.profile.n_asked("posing") <= 45


def test_a_reference_that_costs_nothing_answers_all() -> None:
    data = table(500, cheap=(0.0, np.zeros(500)))
    data.costs = {REFERENCE: 0.0, "cheap": 0.0}
    outcome = solve(data, 0.1, shuffled(500, 0))
    assert (outcome.answered_by == 0).all()
    assert any("costs nothing" in note for note in outcome.plan.notes)


def test_a_free_candidate_is_audited_like_any_other() -> None:
    data = table(3000, free=(0.0, some_errors(3000, 0.05)))
    outcome = solve(data, 0.1, shuffled(3000, 0))
    assert cost_ratio(outcome) < 0.2
    assert outcome.plan.certificate["deployed"]["permitted"]


def test_no_candidates_at_all_leave_the_reference() -> None:
    outcome = solve(table(100), 0.1, shuffled(100, 0))
    assert (outcome.answered_by == 0).all()
    assert outcome.plan.bound == 0.0


# ---- sizes


@pytest.mark.parametrize("rows", [1, 2, 12])
def test_a_tiny_table_is_the_reference_s(rows: int) -> None:
    outcome = solve(table(rows, cheap=(0.03, np.zeros(rows))), 0.5, shuffled(rows, 0))
    assert (outcome.answered_by == 0).all()
    assert outcome.rounds == 0


@pytest.mark.parametrize("delta", [0.0, 0.0009])
def test_no_tolerated_row_means_the_reference_only(delta: float) -> None:
    outcome = solve(table(1000, cheap=(0.03, np.zeros(1000))), delta, shuffled(1000, 0))
    assert (outcome.answered_by == 0).all()
    assert cost_ratio(outcome) == 1.0


@pytest.mark.parametrize("gamma", [0.01, 0.3, 0.5, 0.9, 0.999, 1 - 1e-6, 1 - 1e-15])
def test_any_confidence_can_be_asked_for(gamma: float) -> None:
    data = table(600, cheap=(0.05, some_errors(600, 0.06)))
    outcome = run(Exact(), data.problem(0.1, shuffled(600, 0), gamma), data)
    assert cost_ratio(outcome) <= 1.0
    assert recheck(outcome.plan.certificate) == []
    if gamma > 1 - 1e-9:
        assert (outcome.answered_by == 0).all()


@pytest.mark.parametrize("delta", [0.02, 0.1, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("rows", [13, 20, 37, 64, 150])
def test_any_size_and_tolerance_ends_within_the_bill(rows: int, delta: float) -> None:
    for seed, share in enumerate((0.0, 0.1, 0.5, 1.0)):
        data = table(rows, cheap=(0.05, some_errors(rows, share)), bad=(0.05, np.ones(rows)))
        outcome = solve(data, delta, shuffled(rows, seed))
        assert cost_ratio(outcome) <= 1.02
        assert outcome.plan.assigned.shape == (rows,)
        assert recheck(outcome.plan.certificate) == []


@pytest.mark.parametrize("price", [0.2, 0.5, 0.9])
def test_even_a_dear_candidate_never_adds_more_than_two_percent(price: float) -> None:
    for seed, share in enumerate((0.03, 0.08, 0.12, 0.3)):
        data = table(400, dear=(price, some_errors(400, share)))
        assert cost_ratio(solve(data, 0.05, shuffled(400, seed))) <= 1.02


# ---- rows that share a prompt


def test_a_prompt_is_asked_once_and_carries_one_answer_for_all_its_rows() -> None:
    prompts = 400
    data = table(prompts, cheap=(0.03, some_errors(prompts, 0.03)))
    population = heavy(prompts, 3, seed=2)
    outcome = solve(data, 0.1, population)
    assert outcome.profile.n_asked(REFERENCE) <= prompts
    deployed = outcome.plan.certificate["deployed"]
    mine = np.flatnonzero(outcome.plan.assigned == 1)
    assert mine.size > 100
    assert (population.first[mine] >= deployed["start"]).all()
    assert (population.last[mine] < deployed["end"]).all()
    assert deployed["rows"] == 3 * mine.size


@pytest.mark.parametrize("prompts", [1, 2, 10, 30])
def test_few_distinct_prompts_never_cost_more_than_the_reference_would(prompts: int) -> None:
    for seed in range(5):
        weight = 3000 // prompts
        for share in (0.0, 0.5, 1.0):
            data = table(prompts, cheap=(0.2, some_errors(prompts, share)))
            outcome = solve(data, 0.1, heavy(prompts, weight, seed))
            assert cost_ratio(outcome) <= 1.02


def test_rows_with_heavy_prompts_keep_the_promise_by_weight() -> None:
    """One prompt in 20 stands in many rows, and its answers are the wrong ones."""
    prompts, broken, seeds = 400, 0, 150
    weights = np.ones(prompts, dtype=np.int64)
    weights[::20] = 12
    codes = np.zeros(prompts, dtype=np.int64)
    codes[:80:20] = 1  # 4 heavy prompts: 48 rows
    codes[1:20:2] = 1  # 10 light ones
    data = table(prompts, cheap=(0.03, codes))
    tolerated = int(0.09 * weights.sum())
    assert tolerated < 58
    for seed in range(seeds):
        population = Population.shuffled(digests(prompts), weights, seed)
        broken += wrong_rows(data, solve(data, 0.09, population)) > tolerated
    assert broken / seeds <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / seeds)


# ---- asking


def test_batches_go_through_the_order_and_repeat_no_prompt() -> None:
    data = table(4000, a=(0.03, some_errors(4000, 0.09)), b=(0.05, some_errors(4000, 0.08, 1)))
    population = shuffled(4000, 4)
    outcome = solve(data, 0.1, population)
    asked: list[int] = []
    for asks in data.batches[: outcome.rounds]:
        for ask in asks:
            if ask.model == REFERENCE:
                asked += sorted(population.first[ask.prompts].tolist())
    assert asked == list(range(len(asked)))
    assert outcome.rounds <= 20


def test_rows_asked_ahead_play_no_part_in_decisions_before_them() -> None:
    """With and without asking ahead the same looks issue the same permissions."""
    codes = some_errors(5000, 0.07)
    patient, eager = Exact(look_ahead=0.0), Exact(look_ahead=0.5)
    for seed in range(4):
        data = table(5000, cheap=(0.03, codes))
        one = solve(data, 0.1, shuffled(5000, seed), patient)
        two = solve(data, 0.1, shuffled(5000, seed), eager)
        keys = ("model", "alpha", "design", "drawn", "found", "issued")
        facts = [
            [{key: test[key] for key in keys} for test in outcome.plan.certificate["tests"]]
            for outcome in (one, two)
        ]
        assert facts[0] == facts[1]
        assert one.plan.certificate["pilot_rows"] == two.plan.certificate["pilot_rows"]
        assert two.rounds < one.rounds


def test_the_same_answers_and_order_give_the_same_plan() -> None:
    data = table(3000, a=(0.03, some_errors(3000, 0.06)), b=(0.04, some_errors(3000, 0.05, 1)))
    plans = [solve(data, 0.1, shuffled(3000, 9)).plan for _ in range(2)]
    assert plans[0].certificate == plans[1].certificate
    assert (plans[0].assigned == plans[1].assigned).all()


def test_with_two_good_candidates_the_shares_of_alpha_add_up() -> None:
    data = table(6000, a=(0.02, some_errors(6000, 0.075)), b=(0.06, some_errors(6000, 0.06, 1)))
    seen = 0
    for seed in range(12):
        outcome = solve(data, 0.08, shuffled(6000, seed))
        tests = outcome.plan.certificate["tests"]
        assert sum(test["alpha"] for test in tests) <= 0.05 + 1e-12
        assert recheck(outcome.plan.certificate) == []
        seen += len(tests) == 2
    assert seen > 0


# ---- a candidate that learns


def learner(rows: int, share: float) -> Table:
    data = table(rows, student=(0.0, some_errors(rows, share)), cheap=(0.2, np.zeros(rows)))
    data.learns = frozenset({"student"})
    return data


def test_a_learning_candidate_is_never_asked_rows_it_was_trained_on() -> None:
    data = learner(6000, 0.04)
    outcome = solve(data, 0.1, shuffled(6000, 1))
    assert data.labels
    for _, labels, prompts in data.labels:
        assert labels.size >= 20
        assert not np.isin(prompts, labels).any()
    assert (outcome.answered_by == 1).sum() > 4000
    assert cost_ratio(outcome) < 0.2


def test_a_learning_candidate_is_trained_on_pilot_rows_only() -> None:
    data = learner(6000, 0.04)
    population = shuffled(6000, 1)
    outcome = solve(data, 0.1, population)
    pilot = outcome.plan.pilot_rows
    for _, labels, _ in data.labels:
        assert (population.first[labels] < pilot).all()
    _, last, prompts = data.labels[-1]
    assert last.size == pilot
    assert population.first[prompts].min() == pilot
    # nothing is trained once the audit runs
    after = [ask for asks in data.batches[outcome.rounds :] for ask in asks]
    assert after and not any(ask.fit for ask in after)


def test_labels_are_bought_for_a_learning_candidate_only_where_it_can_pay() -> None:
    """On a small table, or beside a good cheap model, no long pilot is bought for it."""
    small = learner(150, 0.5)
    assert solve(small, 0.1, shuffled(150, 0)).plan.pilot_rows <= 37
    good = table(3000, student=(0.0, some_errors(3000, 0.5)), cheap=(0.01, np.zeros(3000)))
    good.learns = frozenset({"student"})
    assert cost_ratio(solve(good, 0.1, shuffled(3000, 0))) < 0.1


# ---- the certificate


def certified(seed: int = 1) -> dict[str, object]:
    data = table(3000, cheap=(0.03, some_errors(3000, 0.08)))
    outcome = run(Exact(), data.problem(0.1, shuffled(3000, seed)), data)
    return dict(json.loads(json.dumps(outcome.plan.certificate)))


def test_a_certificate_survives_json_and_holds() -> None:
    for seed in range(5):
        assert recheck(certified(seed)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("tests", 0, "found"), 2900),
        (("tests", 0, "alpha"), 0.2),
        (("tests", 0, "worst_risk"), 0.001),
        (("tests", 0, "design", "level"), 0.04),
        (("tests", 0, "design", "looks"), [30]),
        (("tests", 0, "design", "rows"), 2000),
        (("tests", 0, "design", "tolerated"), 600),
        (("tests", 0, "issued"), 2999),
        (("tests", 0, "drawn"), 3),
        (("tolerated",), 301),
        (("alpha",), 0.1),
        (("deployed", "end"), 4000),
        (("deployed", "start"), 0),
        (("deployed", "model"), "another"),
        (("deployed", "permitted"), False),
        (("deployed", "rows"), 5000),
        (("pilot_rows",), 1),
    ],
)
def test_a_certificate_that_was_changed_does_not_hold(
    path: tuple[str | int, ...], value: object
) -> None:
    facts = certified()
    assert facts["deployed"]["permitted"]  # type: ignore[index]
    place: object = facts
    for key in path[:-1]:
        place = place[key]  # type: ignore[index]
    place[path[-1]] = value  # type: ignore[index]
    assert recheck(facts) != []


def test_an_unreadable_certificate_is_reported_not_raised() -> None:
    assert recheck({"rows": 10}) != []


def test_reference_only_has_a_certificate_that_holds() -> None:
    outcome = solve(table(10, cheap=(0.03, np.zeros(10))), 0.1, shuffled(10, 0))
    assert recheck(outcome.plan.certificate) == []


def test_constants_are_fields_that_can_be_changed() -> None:
    assert replace(Exact(), look_ahead=0.1).look_ahead == 0.1
    assert Exact().name == "certified-blind"
