"""The facts that every certificate begins with: the procedure, and what was promised."""

from __future__ import annotations

from typing import Any

from smartsql.profile import Problem
from smartsql.types import Requirement


def promise_facts(problem: Problem, procedure: str, version: int) -> dict[str, Any]:
    """Which rows, which promise, and the cost of the reference alone in its calls."""
    requirement = problem.requirement
    return {
        "procedure": procedure,
        "version": version,
        "rows": problem.population.n_rows,
        "prompts": problem.population.n_prompts,
        "tolerated": problem.tolerated,
        "delta": requirement.delta,
        "gamma": requirement.gamma,
        "alpha": requirement.alpha,
        "pilot_rows": 0,
        "predicted_cost": float(problem.population.n_prompts),
    }


def promise_discrepancies(facts: dict[str, Any]) -> list[str]:
    """Where a certificate tolerates more rows, or a greater risk, than was promised."""
    wrong = []
    requirement = Requirement(facts["delta"], facts["gamma"])
    tolerated = requirement.tolerated(facts["rows"])
    if facts["tolerated"] != tolerated:
        wrong.append(f"{facts['tolerated']} rows tolerated, delta allows {tolerated}")
    if not abs(facts["alpha"] - requirement.alpha) <= 1e-12:  # nor where it is no number
        wrong.append(f"alpha is {facts['alpha']}, gamma {facts['gamma']}")
    return wrong
