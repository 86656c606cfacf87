"""The `certified` policy: the promise kept at the least cost we know of.

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
from smartsql.policies.audit import Race, Settled, tolerated_rows
from smartsql.policies.certificate import certificate, reference_certificate
from smartsql.policies.pilot import Choice, Pilot
from smartsql.policies.planning import design_table
from smartsql.policies.sample import Sample
from smartsql.policies.tuning import Tuning
from smartsql.profile import Problem, Profile
from smartsql.types import UNKNOWN, Ask, Candidate, IntArray, Plan

SMALLEST_ALPHA = 1e-6
"""Below this chance of a broken promise the reference answers all rows."""
FEWEST_ROWS = 12
"""Up to so many rows the reference answers all."""


@dataclass(frozen=True, slots=True)
class Certified(Tuning):
    """Audit candidates on a random sample and deploy what is proved."""

    @property
    def name(self) -> str:
        """The strategy's name."""
        return "certified"

    def steps(self, problem: Problem, profile: Profile) -> Steps:
        """Pilot, audit, and who answers what."""
        usable, notes = usable_candidates(problem)
        if problem.tolerated < 1 or problem.population.n_rows <= FEWEST_ROWS:
            notes.append(
                f"{problem.population.n_rows} row(s), {problem.tolerated} of which may differ: "
                f"the reference answers all."
            )
            usable = []
        if problem.requirement.alpha < SMALLEST_ALPHA:
            notes.append(
                f"gamma leaves a chance of {problem.requirement.alpha:.3g} only: "
                f"the reference answers all."
            )
            usable = []
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


def usable_candidates(problem: Problem) -> tuple[list[Candidate], list[str]]:
    """Candidates that cost less than the reference, and a note on each that does not."""
    price = problem.reference.expected_cost
    if price <= 0.0:
        return [], ["The reference model costs nothing, so it answers all rows."]
    usable, notes = [], []
    for candidate in problem.candidates:
        if candidate.expected_cost < price:
            usable.append(candidate)
        else:
            notes.append(f"{candidate.name} was not used: it costs as much as the reference.")
    return usable, notes


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
