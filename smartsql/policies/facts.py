"""The facts that every certificate begins with: the procedure, and what was promised."""

from __future__ import annotations

from typing import Any

from smartsql.profile import Problem


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
