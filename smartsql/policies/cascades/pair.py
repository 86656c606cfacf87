"""A cascade of one cheap model and the reference, without a guarantee."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from smartsql.policies import Steps
from smartsql.policies.cascades.sample import Labelled, choose, learn, unlabelled
from smartsql.policies.cascades.tiers import reference_plan, tiers
from smartsql.profile import Problem, Profile
from smartsql.types import BoolArray, FloatArray, Plan

NOT_PROVEN = "the bound is what the labelled rows suggest, not proven"


class Router(Protocol):
    """Which of the cheap model's answers are kept."""

    def keeps(self, scores: FloatArray) -> BoolArray:
        """Whether answers of these confidences are kept; minus infinity is no confidence."""
        ...

    def facts(self) -> dict[str, Any]:
        """What was learned, JSON-able."""
        ...


Train = Callable[[Labelled, float], Router]
"""The router that labelled rows and a tolerated share of errors suggest."""


def cascade(
    name: str,
    problem: Problem,
    profile: Profile,
    train: Train,
    *,
    verifies: bool,
    given: Router | None = None,
) -> Steps:
    """Choose the cheap model, train the router on labelled rows, apply it to all others.

    Args:
        name: of the strategy.
        verifies: whether a verifier judges wherever there is one; see `tiers.judge`.
        given: router to be used instead of a trained one.
    """
    ladder, notes = tiers(problem)
    if not ladder:
        return reference_plan(problem, notes)

    def rule(facts: Labelled, delta: float) -> BoolArray:
        return (given or train(facts, delta)).keeps(facts.scores)

    judged, sample = yield from choose(problem, profile, ladder, rule, verifies=verifies)
    router = given
    if judged is not None and router is None:
        facts, sample = yield from learn(problem, profile, judged)
        router = train(facts, problem.requirement.delta)
        judged = judged if facts.cost(router.keeps(facts.scores)) < 1.0 else None
    if judged is None or router is None:
        return reference_plan(problem, notes, pilot_rows=sample.n_rows)
    rest = unlabelled(problem, profile)
    yield judged.asks(rest)
    kept = rest[router.keeps(judged.scores(profile, rest))]
    assigned = np.zeros(problem.population.n_prompts, dtype=np.int64)
    assigned[kept] = judged.tier.position
    return Plan(
        assigned,
        bound=problem.requirement.delta if kept.size else 0.0,
        pilot_rows=sample.n_rows,
        certificate={
            "procedure": name,
            "model": judged.name,
            "judge": judged.judge,
            **router.facts(),
        },
        notes=(*notes, NOT_PROVEN),
    )
