"""The cheapest assignment of groups of rows to courses of action, by HiGHS.

A course is what may be done with a row: take one candidate's answer, try several in turn, ask the
reference. A group is a set of rows that look alike. One course has to be chosen for each group
such that the expected errors stay within a budget. With a single group and shares instead of a
choice this is the mixture of models of SMART (arXiv 2403.13835, section on mixtures).

A solve that fails returns nothing; callers then leave all rows to the reference.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from smartsql.types import BoolArray, FloatArray

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which course each group takes.

    Attributes:
        shares: share of each group on each course, rows sum to 1; shape (groups, courses).
        cost: expected cost of all groups.
        errors: expected errors of all groups.
    """

    shares: FloatArray
    cost: float
    errors: float


@dataclass(frozen=True, slots=True)
class Mixture:
    """Shares of the rows for the reference and for each candidate.

    Attributes:
        shares: the reference's share, then the candidates'; sums to 1.
        unit_cost: mean cost of a row.
    """

    shares: tuple[float, ...]
    unit_cost: float


def assign(
    costs: ArrayLike,
    errors: ArrayLike,
    *,
    budget: float,
    whole: bool = True,
    allowed: BoolArray | None = None,
    time_limit_s: float = 5.0,
    gap: float = 1e-4,
) -> Assignment | None:
    """The cheapest course for each group with at most `budget` expected errors in total.

    Args:
        costs: cost of all rows of a group on a course; shape (groups, courses).
        errors: expected errors there; same shape.
        budget: expected errors allowed over all groups.
        whole: each group takes exactly one course (a MILP); else groups may be split (an LP
            whose optimum splits at most one group).
        allowed: courses that a group may take; same shape; all by default.
        time_limit_s: seconds after which the best assignment found so far is taken.
        gap: relative distance from the optimum at which the search may stop.

    Returns:
        The assignment, or None when there is none or the solver found none in time.
    """
    cost = np.atleast_2d(np.asarray(costs, dtype=np.float64))
    error = np.atleast_2d(np.asarray(errors, dtype=np.float64))
    if cost.shape != error.shape or not (np.isfinite(cost).all() and np.isfinite(error).all()):
        log.warning("no assignment: costs and errors must be finite and of one shape")
        return None
    open_ = np.ones(cost.shape, dtype=np.bool_) if allowed is None else allowed
    values = _solve(cost, error, budget, whole, open_, time_limit_s, gap)
    if values is None:
        return None
    shares = np.clip(values.reshape(cost.shape), 0.0, 1.0)
    shares = np.round(shares) if whole else shares / shares.sum(axis=1, keepdims=True)
    spent = float((shares * error).sum())
    if spent > budget + 1e-6 * max(1.0, abs(budget)):
        log.warning("assignment rejected: %.6g expected errors, %.6g allowed", spent, budget)
        return None
    return Assignment(shares, float((shares * cost).sum()), spent)


def _solve(
    cost: FloatArray,
    error: FloatArray,
    budget: float,
    whole: bool,
    open_: BoolArray,
    time_limit_s: float,
    gap: float,
) -> FloatArray | None:
    """Values of the variables, groups by courses; None if there is no feasible point."""
    import highspy

    groups, courses = cost.shape
    columns = cost.size
    model = highspy.HighsLp()
    model.num_col_ = columns
    model.num_row_ = groups + 1
    model.col_cost_ = cost.ravel()
    model.col_lower_ = np.zeros(columns)
    model.col_upper_ = open_.astype(np.float64).ravel()
    model.row_lower_ = np.append(np.ones(groups), -highspy.kHighsInf)
    model.row_upper_ = np.append(np.ones(groups), budget)
    # by columns: each variable stands in its group's row and in the budget
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = np.arange(0, 2 * columns + 1, 2, dtype=np.int32)
    index = np.empty((columns, 2), dtype=np.int32)
    index[:, 0] = np.repeat(np.arange(groups), courses)
    index[:, 1] = groups
    model.a_matrix_.index_ = index.ravel()
    model.a_matrix_.value_ = np.column_stack([np.ones(columns), error.ravel()]).ravel()
    if whole:
        model.integrality_ = [highspy.HighsVarType.kInteger] * columns
    solver = highspy.Highs()  # type: ignore[no-untyped-call]
    solver.silent()
    solver.setOptionValue("time_limit", float(time_limit_s))
    solver.setOptionValue("mip_rel_gap", float(gap))
    solver.setOptionValue("threads", 1)
    if solver.passModel(model) == highspy.HighsStatus.kError:
        log.warning("no assignment: the solver refused the model")
        return None
    solver.run()
    status = solver.getModelStatus()
    optimal = status == highspy.HighsModelStatus.kOptimal
    late = status == highspy.HighsModelStatus.kTimeLimit
    feasible = solver.getInfo().primal_solution_status == 2
    if not (optimal or (late and feasible)):
        log.warning("no assignment: the solver ended with status %s", status.name)
        return None
    return np.asarray(solver.getSolution().col_value, dtype=np.float64)


def cheapest_mixture(
    unit_costs: ArrayLike, error_rates: ArrayLike, *, reference_cost: float, budget: float
) -> Mixture:
    """The cheapest mixture of candidates and reference whose expected error rate is in budget.

    Args:
        unit_costs: cost of a row of each candidate; shape (candidates,).
        error_rates: expected share of rows on which each disagrees; shape (candidates,).
        reference_cost: cost of a row of the reference, which never errs.
        budget: share of rows that may disagree.

    Returns:
        The mixture; all rows to the reference when the solve fails.
    """
    costs = np.append(reference_cost, np.asarray(unit_costs, dtype=np.float64))
    rates = np.append(0.0, np.asarray(error_rates, dtype=np.float64))
    found = assign(costs[None, :], rates[None, :], budget=budget, whole=False)
    if found is None:
        return Mixture((1.0,) + (0.0,) * (costs.size - 1), float(reference_cost))
    return Mixture(tuple(float(share) for share in found.shares[0]), found.cost)
