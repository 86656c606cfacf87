"""The loop in which a policy and the models meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from smartsql.policies import Policy
from smartsql.profile import Problem, Profile
from smartsql.types import FAILED, UNKNOWN, Ask, IntArray, Plan


class Source(Protocol):
    """Where answers come from: models and ledger, or a recording."""

    def fulfil(self, asks: Sequence[Ask], profile: Profile) -> None:
        """Record an answer in the profile for every prompt of every ask.

        Asks run concurrently. A call that fails for good is recorded as `FAILED`. Prompts that
        the profile already knows are among them only where a learning model is asked anew: its
        new answers replace the earlier ones. What goes into the prompts of a model
        with prerequisites (`Candidate.after`) is in the profile; where one of them failed, the
        model is not asked and recorded as `FAILED` at no cost.
        """
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answered problem.

    Attributes:
        plan: what the policy decided.
        answered_by: position of the model whose answer each prompt carries; shape (n_prompts,).
        rounds: steps of pilot and audit that asked something (concurrent round trips).
    """

    plan: Plan
    answered_by: IntArray
    profile: Profile
    rounds: int


def run(policy: Policy, problem: Problem, source: Source) -> Outcome:
    """Answer every row by alternating what to ask with what was said."""
    profile = Profile(problem)
    steps = policy.steps(problem, profile)
    rounds = 0
    while True:
        try:
            asks = next(steps)
        except StopIteration as stop:
            plan: Plan = stop.value
            break
        rounds += fulfil(asks, profile, source)
    answered_by = deploy(plan, problem, profile, source)
    return Outcome(plan, answered_by, profile, rounds)


def fulfil(asks: Sequence[Ask], profile: Profile, source: Source) -> int:
    """Ask what is not known yet, in waves: what an ask builds upon is asked before it.

    Returns:
        Waves that asked something.
    """
    before = _prerequisites(asks, profile)
    waves = fulfil(before, profile, source) if before else 0
    return waves + _wave(asks, profile, source)


def _prerequisites(asks: Sequence[Ask], profile: Profile) -> list[Ask]:
    """Asks for the answers that go into the prompts of these asks and are not known yet."""
    after = {model.name: model.after for model in profile.problem.callable}
    missing: dict[str, list[IntArray]] = {}
    for ask in asks:
        for name in after[ask.model]:
            missing.setdefault(name, []).append(ask.prompts[~profile.known(name, ask.prompts)])
    asked = {name: np.concatenate(prompts) for name, prompts in missing.items()}
    return [Ask(name, prompts) for name, prompts in asked.items() if prompts.size]


def _wave(asks: Sequence[Ask], profile: Profile, source: Source) -> bool:
    """Ask what is not known yet, all at once; False if all was known."""
    unknown = []
    for ask in asks:
        prompts = np.unique(ask.prompts)
        if not ask.anew:
            prompts = prompts[~profile.known(ask.model, prompts)]
        if prompts.size or ask.fit:
            unknown.append(replace(ask, prompts=prompts))
    if unknown:
        source.fulfil(unknown, profile)
    return bool(unknown)


def deploy(plan: Plan, problem: Problem, profile: Profile, source: Source) -> IntArray:
    """Have the assigned model answer each prompt; failures go on to the reference."""
    reference = problem.reference.name
    answered_by = np.asarray(plan.assigned, dtype=np.int64).copy()
    if plan.escalates_failures:
        # where the reference has answered, its answer is the right one and costs nothing more
        answered_by[profile.codes(reference) != UNKNOWN] = 0
    asks = [
        Ask(model.name, np.flatnonzero(answered_by == position), bulk=True)
        for position, model in enumerate(problem.models)
    ]
    fulfil(asks, profile, source)
    if plan.escalates_failures:
        for position, model in enumerate(problem.candidates, start=1):
            mine = answered_by == position
            answered_by[mine & (profile.codes(model.name) == FAILED)] = 0
        fulfil([Ask(reference, np.flatnonzero(answered_by == 0), bulk=True)], profile, source)
    return answered_by
