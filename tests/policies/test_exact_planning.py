"""What the planner expects, against counting and against simulated audits."""

from __future__ import annotations

import numpy as np
import pytest

from smartsql.policies.exact.planning import (
    PromptCounts,
    design_table,
    error_rates,
    is_hopeless,
    outlook,
    posterior,
    posterior_mean,
)
from smartsql.population import Population
from smartsql.stats.design import Design, draw_up
from smartsql.stats.risk import chances, endings
from tests.policies.tables import digests, shuffled


def test_distinct_prompts_are_counted_exactly() -> None:
    weights = np.array([1, 5, 2, 9, 1, 1, 3])
    population = Population.shuffled(digests(7), weights, 3)
    counts = PromptCounts(population)
    expected = [len(set(population.order[:n].tolist())) for n in range(23)]
    assert counts.seen(np.arange(23)).tolist() == expected


def test_prompts_inside_a_stretch_are_expected_as_counted_over_many_orders() -> None:
    weights = np.repeat([1, 2, 6], [40, 20, 10])
    counted, expected = [], []
    for seed in range(300):
        population = Population.shuffled(digests(70), weights, seed)
        inside = (population.first >= 30) & (population.last < 110)
        counted.append(int(inside.sum()))
        expected.append(float(PromptCounts(population).inside(30, 110)))
    error = np.std(counted) / np.sqrt(300)
    assert abs(np.mean(counted) - np.mean(expected)) < 4 * error + 0.3
    rest = (population.first >= 30).sum()
    assert float(PromptCounts(population).inside(30, 140)) == pytest.approx(rest)


def audit(design: Design, wrong: np.ndarray) -> tuple[int, int]:
    """Rows audited and rows freed on one order."""
    found = np.cumsum(wrong)
    for look, bound in zip(design.looks, design.bounds, strict=True):
        if found[look - 1] <= bound:
            return int(look), design.n_rows - int(look)
    return design.last, design.prefix(int(found[design.last - 1])) - design.last


def test_expected_audits_and_freed_rows_are_those_of_simulated_audits() -> None:
    rows, tolerated, last, level = 1000, 60, 300, 0.03
    design = draw_up(rows, tolerated, last, 0.5, 0.05, level)
    ends = endings(design)
    rng = np.random.default_rng(1)
    for errors in (30, 66, 100):
        chance = chances(ends, rows, np.array([errors]))[0]
        rest = 1 - chance.sum()
        audits = float(chance @ ends.drawn + rest * last)
        freed = float(chance @ (ends.end - ends.drawn) + rest * tolerated)
        runs = []
        for _ in range(400):
            wrong = np.zeros(rows, dtype=np.int64)
            wrong[rng.choice(rows, errors, replace=False)] = 1
            runs.append(audit(design, wrong))
        mean, error = np.mean(runs, axis=0), np.std(runs, axis=0) / 20
        assert abs(mean[0] - audits) < 4 * error[0]
        assert abs(mean[1] - freed) < 4 * error[1]


def test_designs_of_the_table_expect_less_to_audit_the_better_a_candidate_is() -> None:
    table = design_table(5574, 334, 0.05)
    ahead = outlook(table, PromptCounts(shuffled(5574, 0)), 0)
    cost = ahead.costs(0.05, 0.05).min(axis=0)
    assert (np.diff(cost) > -1.0).all()
    assert cost[0] < 0.07 * 5574
    assert cost[-1] < 0.95 * 5574


def test_the_first_design_audits_nothing_and_frees_the_tolerated_rows() -> None:
    table = design_table(500, 25, 0.05)
    ahead = outlook(table, PromptCounts(shuffled(500, 0)), 10)
    assert ahead.audited[0].tolist() == [0.0] * table.rates.size
    assert ahead.freed[0] == pytest.approx(25.0)
    assert ahead.costs(0.1, 0.1)[0] == pytest.approx(25 * 0.1 + 465)


def test_chances_of_a_design_s_endings_add_up() -> None:
    table = design_table(5574, 334, 0.05)
    totals = np.add.reduceat(table.chance, table.starts, axis=1)
    assert totals == pytest.approx(np.ones_like(totals), abs=1e-6)


def test_the_posterior_is_a_distribution_around_what_was_seen() -> None:
    rates = error_rates(0.1)
    assert (np.diff(rates) > 0).all()
    few, many = posterior(rates, 1, 10), posterior(rates, 50, 500)
    assert few.sum() == pytest.approx(1.0) and many.sum() == pytest.approx(1.0)
    assert float(many @ rates) == pytest.approx(posterior_mean(50, 500), abs=0.005)
    spread = [float(w @ rates**2 - (w @ rates) ** 2) for w in (few, many)]
    assert spread[1] < spread[0] / 5


def test_six_errors_in_six_rows_are_hopeless_and_five_are_not() -> None:
    assert is_hopeless(6, 6, 0.01)
    assert not is_hopeless(5, 6, 0.01)
    assert not is_hopeless(0, 0, 0.01)
