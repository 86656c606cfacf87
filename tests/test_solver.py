"""Assignments and mixtures, against enumeration and arithmetic."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from smartsql.solver import assign, cheapest_mixture


def best_by_enumeration(cost: np.ndarray, error: np.ndarray, budget: float) -> float:
    groups, courses = cost.shape
    rows = np.arange(groups)
    values = [
        cost[rows, choice].sum()
        for choice in map(np.array, product(range(courses), repeat=groups))
        if error[rows, choice].sum() <= budget + 1e-9
    ]
    return float(min(values))


@pytest.mark.parametrize("seed", range(12))
def test_the_assignment_is_the_cheapest_within_budget(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost, error = rng.random((5, 4)), rng.random((5, 4))
    error[:, 3], cost[:, 3] = 0.0, 1.0  # the reference: dear and right
    budget = float(rng.random() * 2)
    found = assign(cost, error, budget=budget, gap=0.0)
    assert found is not None
    assert found.cost == pytest.approx(best_by_enumeration(cost, error, budget))
    assert found.errors <= budget + 1e-9
    assert set(np.unique(found.shares)) <= {0.0, 1.0}
    assert (found.shares.sum(axis=1) == 1.0).all()


def test_split_groups_cost_no_more_and_at_most_one_is_split() -> None:
    rng = np.random.default_rng(0)
    cost, error = rng.random((40, 3)), rng.random((40, 3))
    error[:, 2], cost[:, 2] = 0.0, 1.0
    whole = assign(cost, error, budget=5.0, gap=0.0)
    split = assign(cost, error, budget=5.0, whole=False)
    assert whole is not None and split is not None
    assert split.cost <= whole.cost + 1e-9
    assert split.errors <= 5.0 + 1e-6
    assert (split.shares.max(axis=1) < 1 - 1e-9).sum() <= 1


def test_a_course_that_is_not_allowed_is_not_taken() -> None:
    cost = np.array([[0.1, 1.0], [0.1, 1.0]])
    allowed = np.array([[False, True], [True, True]])
    found = assign(cost, np.zeros((2, 2)), budget=1.0, allowed=allowed)
    assert found is not None
    assert found.shares.tolist() == [[0.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("cost", "error"),
    [
        ([[1.0]], [[2.0]]),  # more errors than the budget whatever is chosen
        ([[np.nan]], [[0.0]]),
        ([[1.0, 2.0]], [[0.0]]),
        ([[1.0]], [[np.inf]]),
    ],
)
def test_what_cannot_be_solved_gives_nothing_and_raises_nothing(
    cost: list[list[float]], error: list[list[float]]
) -> None:
    assert assign(cost, error, budget=1.0) is None


def test_a_mixture_uses_the_budget_and_no_more() -> None:
    mixture = cheapest_mixture([0.033, 0.05], [0.06, 0.04], reference_cost=1.0, budget=0.02)
    # the second alone on half of the rows: .5 + .5 * .05; the first on a third: .667 + .011
    assert mixture.unit_cost == pytest.approx(0.525)
    assert mixture.shares == pytest.approx((0.5, 0.0, 0.5))
    between = cheapest_mixture([0.03, 0.05], [0.10, 0.06], reference_cost=1.0, budget=0.08)
    assert between.shares == pytest.approx((0.0, 0.5, 0.5))


def test_without_a_solution_all_rows_go_to_the_reference() -> None:
    mixture = cheapest_mixture([np.nan], [0.1], reference_cost=1.0, budget=0.1)
    assert mixture.shares == (1.0, 0.0)
    assert mixture.unit_cost == 1.0
