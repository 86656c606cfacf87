"""One candidate for rows that look alike: audited by an exact design, deployed where proved.

In the secret random order of the rows: a short pilot chooses one or two candidates and a design
for each; the audit asks reference and candidates about the next rows until a design frees the
rest, or a prefix of it; the candidate answers the freed rows, the reference all others. Pilot and
audited rows carry the reference's answer.

Why the promise holds: given the pilot, the order of the other rows is still uniform and the errors
of each candidate among them are a fixed number. A design frees too many of them with probability
at most its share of alpha, whatever that number is, and the shares add up to alpha. Stopping
early, using less of a permission, or handing out no more than the tolerated rows breaks nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from smartsql.policies import Steps
from smartsql.policies.eligible import eligible
from smartsql.policies.exact.audit import Race, Settled, tolerated_rows
from smartsql.policies.exact.certificate import certificate, reference_certificate
from smartsql.policies.exact.pilot import Choice, Pilot
from smartsql.policies.exact.planning import design_table
from smartsql.policies.exact.sample import Sample
from smartsql.policies.exact.tuning import Tuning
from smartsql.profile import Problem, Profile
from smartsql.types import UNKNOWN, Ask, Candidate, IntArray, Plan


@dataclass(frozen=True, slots=True)
class Exact(Tuning):
    """Audit candidates on a random sample and deploy what is proved."""

    @property
    def name(self) -> str:
        """The strategy's name."""
        return "certified-blind"

    def steps(self, problem: Problem, profile: Profile) -> Steps:
        """Pilot, audit, and who answers what."""
        usable, notes = eligible(problem)
        if not usable:
            return reference_only(problem, notes)
        sample = Sample(problem, profile)
        choice, settled = yield from self._audited(problem, sample, usable)
        assigned = assignment(problem, sample, settled)
        rows = int(problem.population.weights[assigned > 0].sum())
        return Plan(
            assigned,
            bound=min(problem.tolerated, rows) / problem.population.n_rows,
            pilot_rows=choice.pilot,
            audited_rows=max(0, sample.asked - choice.pilot),
            certificate=certificate(problem, choice, settled, sample.asked, rows),
            notes=(*notes, *choice.notes),
        )

    def _audited(
        self, problem: Problem, sample: Sample, usable: list[Candidate]
    ) -> Generator[list[Ask], None, tuple[Choice, Settled]]:
        """Run pilot and audit."""
        alpha = problem.requirement.alpha
        table = design_table(problem.population.n_rows, problem.tolerated, alpha)
        choice = yield from Pilot(self, sample, table, usable).run()
        if choice.tests:
            settled = yield from Race.start(self, sample, choice, alpha).run()
        else:
            saved, spare, start, end, _ = tolerated_rows(sample, table, choice.spare)
            if saved <= 0.0:
                spare, end = None, start
            settled = Settled((), spare, start, end, permitted=False)
        return choice, settled


def assignment(problem: Problem, sample: Sample, settled: Settled) -> IntArray:
    """Position of the model that answers each prompt; shape (n_prompts,).

    A prompt goes to the candidate only if all its rows are freed and the reference has not
    answered it. The permission is about rows; leaving some of them out only removes errors.
    """
    population = problem.population
    assigned = np.zeros(population.n_prompts, dtype=np.int64)
    if settled.deployed is None:
        return assigned
    inside = (population.first >= settled.start) & (population.last < settled.end)
    inside &= sample.profile.codes(problem.reference.name) == UNKNOWN
    names = [model.name for model in problem.models]
    assigned[inside] = names.index(settled.deployed.model.name)
    return assigned


def reference_only(problem: Problem, notes: list[str]) -> Plan:
    """All rows to the reference."""
    assigned = np.zeros(problem.population.n_prompts, dtype=np.int64)
    facts = reference_certificate(problem)
    return Plan(assigned, bound=0.0, certificate=facts, notes=tuple(notes))
