"""The `certified` policy: the promise kept at the least cost we know of.

A pilot tells which candidate, which evidence and which proof are worth their money. Where rows look
alike, an exact audit of one candidate decides (`smartsql.policies.exact`). Where evidence tells
them apart, one candidate, the primary, answers all rows, and where that pays a second one answers
the groups of rows on which the primary is likely wrong; others, and verifiers, may be asked for
evidence. Where predictions say that the plan's answer is wrong, the reference is asked. Draws from
the other rows are bets that few errors remain; when the bets are won the answers are deployed.

Why the promise holds: see `smartsql.stats.betting`. Who answers which row, and with what, is fixed
before the first draw; the number of errors among the rows in scope is a fixed number; a deployment
with more than the tolerated errors needs the evidence against their true number to reach 1/alpha.
Everything else, predictions, plans, stakes, escalations, may be arbitrary.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from smartsql.policies import Steps
from smartsql.policies.eligible import eligible
from smartsql.policies.exact.exact import Exact, reference_only
from smartsql.policies.routing.certificate import routing_certificate
from smartsql.policies.routing.courses import PLANNED, PlannedAnswers, evidence_of
from smartsql.policies.routing.evidence import evidence
from smartsql.policies.routing.layout import in_order, laid
from smartsql.policies.routing.loop import Loop, unasked
from smartsql.policies.routing.pilot import Pilot
from smartsql.policies.routing.pricing import Configuration
from smartsql.policies.routing.tuning import RoutingTuning
from smartsql.profile import Problem, Profile
from smartsql.types import Plan

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
        candidates = [m for m in usable if not m.learns]
        if not candidates or problem.population.n_prompts < FEWEST_PROMPTS:
            return (yield from self.exact.steps(problem, profile))
        learners = [m for m in usable if m.learns]
        pilot = Pilot(self.tuning, problem, profile, candidates, learners=learners)
        ranked = yield from pilot.run()
        if not self._routing_pays(pilot, ranked):
            # its own pilot starts no earlier than what has been looked at to choose it
            sizes = (pilot.size, *(s for s in self.exact.pilot_sizes if s > pilot.size))
            exact = replace(self.exact, pilot_sizes=sizes)
            return (yield from exact.steps(problem, profile))
        return (yield from self._routed(problem, profile, pilot, ranked[0], notes))

    def _routed(
        self,
        problem: Problem,
        profile: Profile,
        pilot: Pilot,
        chosen: Configuration,
        notes: list[str],
    ) -> Steps:
        """Ask the candidates, fix who answers what, and prove it."""
        parts, laid_out = yield from laid(problem, profile, pilot, chosen)
        view, primary = profile, chosen.primary
        if len(parts) > 1:
            view, primary = PlannedAnswers(profile, parts), PLANNED
        answering = in_order(problem, np.concatenate([part.prompts for part in parts]))
        answered = answering[view.codes(primary)[answering] >= 0]
        is_open = unasked(profile, problem, answered)
        scope, known = answered[is_open], answered[~is_open]
        order = np.concatenate([scope, known])
        facts = (
            evidence_of(profile, parts, order)
            if len(parts) > 1
            else evidence(profile, primary, chosen.helpers, order)
        )
        loop = Loop(self.tuning, problem, view, primary, scope, known, facts)
        settled = yield from loop.run()
        assigned = np.zeros(problem.population.n_prompts, dtype=np.int64)
        names = [model.name for model in problem.models]
        for part, told in zip(parts, laid_out["answers"], strict=True):
            mine = part.prompts[settled.deployed[part.prompts]]
            assigned[mine] = names.index(part.answers)
            told["deployed"] = int(mine.size)
        rows = int(problem.population.weights[settled.deployed].sum())
        certificate = routing_certificate(problem, pilot.size, chosen, settled, loop, rows)
        return Plan(
            assigned,
            bound=min(problem.tolerated, rows) / problem.population.n_rows,
            pilot_rows=pilot.size,
            audited_rows=settled.drawn,
            certificate=certificate | {"plan": laid_out},
            notes=tuple(notes),
        )

    def _routing_pays(self, pilot: Pilot, ranked: list[Configuration]) -> bool:
        """Whether routing is the cheapest, as far as the pilot tells."""
        if not ranked or ranked[0].cost >= pilot.free().cost:
            return False
        plain, best = pilot.exact(), ranked[0]
        margin = self.tuning.exact if best.guided else self.tuning.exact_unguided
        return plain is None or plain.cost >= best.cost * margin
