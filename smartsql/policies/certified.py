"""The `certified` policy: the promise kept at the least cost we know of.

A pilot tells which candidate, which evidence and which proof are worth their money. Where rows look
alike, an exact audit of one candidate decides (`smartsql.policies.exact`). Where evidence tells
them apart, one candidate, the primary, answers all rows; others may be asked for evidence. Where
predictions say that its answer is wrong, the reference is asked. Draws from the other rows are bets
that few errors remain; when the bets are won the primary's answers are deployed.

Why the promise holds: see `smartsql.stats.betting`. The primary and its answers are fixed before
the first draw; the number of its errors among the rows in scope is a fixed number; a deployment
with more than the tolerated errors needs the evidence against their true number to reach 1/alpha.
Everything else, predictions, plans, stakes, escalations, may be arbitrary.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from smartsql.policies import Steps
from smartsql.policies.eligible import eligible
from smartsql.policies.exact.exact import Exact, reference_only
from smartsql.policies.routing.certificate import reference_facts, routing_certificate
from smartsql.policies.routing.evidence import evidence
from smartsql.policies.routing.loop import Loop, unasked
from smartsql.policies.routing.pilot import Configuration, Pilot
from smartsql.policies.routing.tuning import RoutingTuning
from smartsql.profile import Problem, Profile
from smartsql.types import Ask, Plan

FEWEST_PROMPTS = 40
"""With fewer distinct prompts there is nothing to learn from; the exact audit weighs every call."""


@dataclass(frozen=True, slots=True)
class Certified:
    """Route each row by evidence, prove the whole by an audit.

    Attributes:
        tuning: constants of routing.
        exact: the policy that takes over where routing does not pay.
    """

    tuning: RoutingTuning = field(default_factory=RoutingTuning)
    exact: Exact = field(default_factory=Exact)

    @property
    def name(self) -> str:
        """The strategy's name."""
        return "certified"

    def steps(self, problem: Problem, profile: Profile) -> Steps:
        """Pilot, loop, and who answers what."""
        usable, notes = eligible(problem)
        if not usable:
            return reference_only(problem, notes)
        assigned = np.zeros(problem.population.n_prompts, dtype=np.int64)
        candidates = [m for m in usable if not m.learns]
        if not candidates or problem.population.n_prompts < FEWEST_PROMPTS:
            return (yield from self.exact.steps(problem, profile))
        pilot = Pilot(self.tuning, problem, profile, candidates)
        ranked = yield from pilot.run()
        free = pilot.free()
        plain = pilot.exact() if ranked else None
        if plain and self._plain(ranked[0], plain, free):
            # its own pilot starts no earlier than what has been looked at to choose it
            sizes = (pilot.size, *(s for s in self.exact.pilot_sizes if s > pilot.size))
            exact = replace(self.exact, pilot_sizes=sizes)
            return (yield from exact.steps(problem, profile))
        if not ranked or ranked[0].cost >= free.cost:
            return self._tolerated(problem, profile, pilot, free, notes)
        chosen = ranked[0]
        # prompts by their place in the secret order: how they are stored plays no part
        every = np.argsort(problem.population.first, kind="stable")
        fresh = every[unasked(profile, problem, every)]
        fresh = fresh[: int(np.ceil(chosen.share * fresh.size))]
        within = np.concatenate([fresh, pilot.prompts])
        yield [Ask(name, within) for name in (chosen.primary, *chosen.helpers)]
        answered = every[profile.codes(chosen.primary)[every] >= 0]
        is_open = unasked(profile, problem, answered)
        scope, known = answered[is_open], answered[~is_open]
        order = np.concatenate([scope, known])
        facts = evidence(profile, chosen.primary, chosen.helpers, order)
        loop = Loop(self.tuning, problem, profile, chosen.primary, scope, known, facts)
        settled = yield from loop.run()
        names = [model.name for model in problem.models]
        assigned[settled.deployed] = names.index(chosen.primary)
        rows = int(problem.population.weights[settled.deployed].sum())
        return Plan(
            assigned,
            bound=min(problem.tolerated, rows) / problem.population.n_rows,
            pilot_rows=pilot.size,
            audited_rows=settled.drawn,
            certificate=routing_certificate(problem, pilot.size, chosen, settled, loop, rows),
            notes=tuple(notes),
        )

    def _plain(self, routed: Configuration, exact: Configuration, free: Configuration) -> bool:
        """Whether a plain audit is the cheapest, as far as the pilot tells."""
        margin = self.tuning.exact if routed.guided else self.tuning.exact_unguided
        return exact.cost < min(routed.cost * margin, free.cost)

    def _tolerated(
        self,
        problem: Problem,
        profile: Profile,
        pilot: Pilot,
        free: Configuration,
        notes: list[str],
    ) -> Plan:
        """The cheapest candidate on as many rows as may be wrong; no check is needed."""
        population = problem.population
        assigned = np.zeros(population.n_prompts, dtype=np.int64)
        rows = 0
        if free.primary:
            names = [model.name for model in problem.models]
            fresh = np.argsort(population.first, kind="stable")
            fresh = fresh[unasked(profile, problem, fresh)]
            some = fresh[np.cumsum(population.weights[fresh]) <= problem.tolerated]
            assigned[some] = names.index(free.primary)
            rows = int(population.weights[some].sum())
        facts = reference_facts(problem) | {
            "pilot_rows": pilot.size,
            "predicted_cost": free.cost + pilot.prompts.size,
            "deployed": {"model": free.primary or None, "rows": rows, "proved": False},
        }
        return Plan(
            assigned,
            bound=rows / population.n_rows,
            pilot_rows=pilot.size,
            certificate=facts,
            notes=(*notes, "No routing was predicted to pay: only tolerated rows were handed out."),
        )
