"""Tables whose truth is known: what candidates get wrong is drawn, and answers cost what we say.

Shared by the benchmarks of the promise and of the cost. Policies, executor and random order are
the real ones; only the models are arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from smartsql.executor import Outcome, run
from smartsql.policies import Policy
from smartsql.population import Population, digest
from smartsql.profile import Problem, Profile
from smartsql.types import Ask, BoolArray, Candidate, Requirement

REFERENCE = "reference"


@dataclass(frozen=True)
class Table:
    """Rows with distinct prompts, and for each candidate where it is wrong.

    Attributes:
        wrong: per candidate, whether it disagrees with the reference; shape (rows,).
        costs: per candidate, one call in calls of the reference.
    """

    wrong: Mapping[str, BoolArray]
    costs: Mapping[str, float]

    def fulfil(self, asks: Sequence[Ask], profile: Profile) -> None:
        """Answer all asks: 0 is right, 1 is wrong."""
        for ask in asks:
            prompts = ask.prompts
            if ask.model == REFERENCE:
                codes, cost = np.zeros(prompts.size, dtype=np.int32), 1.0
            else:
                codes = self.wrong[ask.model][prompts].astype(np.int32)
                cost = self.costs[ask.model]
            profile.record(ask.model, prompts, codes, np.full(prompts.size, cost))


@dataclass(frozen=True)
class Measured:
    """One run."""

    cost_ratio: float
    wrong_rows: int
    kept_promise: bool
    pilot_rows: int
    audited_rows: int
    rounds: int
    decide_s: float


def row_digests(rows: int) -> np.ndarray:
    """Digests of the row numbers as texts: what the real order is keyed by."""
    texts = [digest(str(row)) for row in range(rows)]
    return np.frombuffer(b"".join(texts), dtype=">u8").reshape(-1, 2).astype(np.uint64)


def measure(
    table: Table, policy: Policy, requirement: Requirement, population: Population
) -> Measured:
    """Run a policy and compare what the rows carry with the reference."""
    candidates = tuple(Candidate(name, cost) for name, cost in table.costs.items())
    problem = Problem(requirement, population, Candidate(REFERENCE, 1.0), candidates)
    started = perf_counter()
    outcome = run(policy, problem, table)
    elapsed = perf_counter() - started
    wrong = wrong_rows(table, outcome)
    spend = sum(float(outcome.profile.costs(model.name).sum()) for model in problem.models)
    return Measured(
        spend / population.n_rows,
        wrong,
        wrong <= problem.tolerated,
        outcome.plan.pilot_rows,
        outcome.plan.audited_rows,
        outcome.rounds,
        elapsed,
    )


def wrong_rows(table: Table, outcome: Outcome) -> int:
    """Rows whose final answer differs from the reference's."""
    return sum(
        int(table.wrong[name][outcome.answered_by == position].sum())
        for position, name in enumerate(table.costs, start=1)
    )
