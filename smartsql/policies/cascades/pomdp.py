"""`automix-pomdp`: the ladder of models as a decision problem over beliefs."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np

from smartsql.policies import Steps
from smartsql.policies.cascades.beliefs import (
    Noise,
    Rung,
    Solution,
    learn_prior,
    states,
)
from smartsql.policies.cascades.pair import NOT_PROVEN
from smartsql.policies.cascades.sample import PROBED, Sample, labelled_rows, unlabelled
from smartsql.policies.cascades.tiers import Tier, cheap, reference_plan, tiers
from smartsql.policies.cascades.walk import Walked, walk
from smartsql.profile import Problem, Profile
from smartsql.types import Ask, FloatArray, IntArray, Plan

OBSERVATIONS = 4
"""Answers and verifications that can be seen on the way up; bounds the tree of beliefs."""
RUNGS = 3
PENALTIES = np.geomspace(1.0, 1000.0, 25)
"""Prices of a wrong answer that are tried, in calls of the reference."""


class AutoMixPOMDP:
    """AutoMix as the decision problem over several models that it poses. No guarantee.

    The rungs are the cheap candidates, by price, that agree more often than all cheaper ones on a
    few labelled rows. All of them and their verifications are paid for on the labelled rows, which
    teach which rungs are right together how often, and the noise of what is seen. The problem is
    solved exactly (`beliefs.Solution`), and the price of a wrong answer is the one whose solution
    reaches 1 - delta on the labelled rows at the least cost.

    A rung without confidences and verification tells nothing by its answer; the solution then
    accepts it, passes it by or asks the reference for all rows alike.

    Source: AutoMix (arXiv 2310.12963), section on the POMDP router; see `beliefs`.
    """

    @property
    def name(self) -> str:
        """The strategy's name."""
        return "automix-pomdp"

    def steps(self, problem: Problem, profile: Profile) -> Steps:
        """Choose the rungs, learn and solve, then walk every row up the ladder."""
        ladder, notes = tiers(problem)
        if not ladder:
            return reference_plan(problem, notes)
        chosen = yield from select(problem, profile, ladder)
        sample = Sample.first(problem.population, labelled_rows(problem))
        yield [Ask(problem.reference.name, sample.prompts), *_asks(chosen, sample.prompts)]
        solution, cost = tune(problem, profile, chosen, sample)
        if solution is None or cost >= 1.0:
            return reference_plan(problem, notes, pilot_rows=sample.n_rows)
        rest = unlabelled(problem, profile)
        walked = yield from walk(solution, profile, chosen, rest)
        positions = np.array([*(t.position for t in chosen), 0])
        assigned = np.zeros(problem.population.n_prompts, dtype=np.int64)
        assigned[rest] = positions[walked.rungs]
        return Plan(
            assigned,
            bound=problem.requirement.delta if assigned.any() else 0.0,
            pilot_rows=sample.n_rows,
            certificate={
                "procedure": self.name,
                "models": [tier.model.name for tier in chosen],
                "prior": solution.prior.tolist(),
                "penalty": solution.penalty,
                "predicted_cost": cost,
            },
            notes=(*notes, NOT_PROVEN),
        )


def _asks(ladder: Sequence[Tier], prompts: IntArray) -> list[Ask]:
    """Answers and verifications of all tiers."""
    calls = [call for tier in ladder for call in (tier.model, tier.verifier) if call]
    return [Ask(call.name, prompts) for call in calls]


def select(
    problem: Problem, profile: Profile, ladder: Sequence[Tier]
) -> Generator[list[Ask], None, list[Tier]]:
    """The rungs: cheap candidates that agree more often than every cheaper one, at most `RUNGS`.

    Of more than that the most exact ones. A single candidate is taken as it is.
    """
    if len(ladder) == 1:
        return list(ladder)
    sample = Sample.first(problem.population, min(PROBED, labelled_rows(problem)))
    tried = cheap(problem, ladder)
    yield [
        Ask(problem.reference.name, sample.prompts),
        *(Ask(tier.model.name, sample.prompts) for tier in tried),
    ]
    kept: list[Tier] = []
    best = 0
    for tier in tried:
        agrees = ~profile.disagrees(tier.model.name, sample.prompts)
        agreed = int(sample.counts[agrees].sum())
        if agreed > best:
            kept.append(tier)
            best = agreed
    return kept[-RUNGS:] or tried[:1]


def learn(
    problem: Problem, profile: Profile, ladder: Sequence[Tier], sample: Sample
) -> tuple[FloatArray, list[Rung]]:
    """The prior and the rungs, from labelled rows."""
    names = [tier.model.name for tier in ladder]
    prompts, counts = sample.prompts, sample.counts
    agrees = np.stack([~profile.disagrees(name, prompts) for name in names])
    bits = states(len(ladder))
    unit = profile.mean_cost(problem.reference.name)

    def noise(place: int, model: str, price: float = 0.0) -> Noise | None:
        scores = profile.confidences(model)[prompts]
        if not np.isfinite(scores).any():
            return None
        return Noise.learn(scores, agrees[place], counts, bits[place], price)

    rungs = []
    for place, tier in enumerate(ladder):
        price = profile.mean_cost(tier.model.name) / unit
        rung = Rung(price, bits[place], noise(place, tier.model.name))
        if tier.verifier is not None:
            second = tier.verifier.name
            judged = noise(place, second, profile.mean_cost(second) / unit)
            rung = replace(rung, verification=judged)
        rungs.append(rung)
    for place, rung in enumerate(rungs):  # what a verification repeats is the least loss
        if sum(r.observations for r in rungs) > OBSERVATIONS and rung.verification:
            rungs[place] = replace(rung, own=None)
    return learn_prior(agrees, counts), rungs


def tune(
    problem: Problem, profile: Profile, ladder: Sequence[Tier], sample: Sample
) -> tuple[Solution | None, float]:
    """The penalty whose solution keeps the promise on the labelled rows at the least cost.

    Returns:
        The solution and its cost of a row in calls of the reference; None if no penalty does.
    """
    prior, rungs = learn(problem, profile, ladder, sample)
    delta = problem.requirement.delta
    best: Solution | None = None
    least = np.inf
    for penalty in PENALTIES[::-1]:  # of equals the one that doubts most
        solution = Solution(prior, rungs, float(penalty))
        walked = _replayed(walk(solution, profile, ladder, sample.prompts))
        errors, cost = _rate(profile, ladder, sample, walked)
        if errors <= delta * sample.n_rows + 1e-9 and cost < least - 1e-12:
            best, least = solution, cost
    return best, float(least)


def _rate(
    profile: Profile, ladder: Sequence[Tier], sample: Sample, walked: Walked
) -> tuple[int, float]:
    """Wrong rows and cost of a row on labelled rows; a failed answer goes to the reference."""
    errors, spent = 0, walked.spent.copy()
    for place, tier in enumerate(ladder):
        mine = walked.rungs == place
        failed = profile.codes(tier.model.name)[sample.prompts] < 0
        spent[mine & failed] += 1.0
        wrong = profile.disagrees(tier.model.name, sample.prompts) & ~failed
        errors += int(sample.counts[mine & wrong].sum())
    return errors, float((spent * sample.counts).sum()) / sample.n_rows


def _replayed(steps: Generator[list[Ask], None, Walked]) -> Walked:
    """The end of a walk whose answers are all known."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            walked: Walked = stop.value
            return walked
