"""Tables whose truth is known: what candidates get wrong is drawn, and answers cost what we say.

Shared by the benchmarks of the promise and of the cost. Policies, executor and random order are
the real ones; only the models are arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from smartsql.executor import Outcome, run
from smartsql.policies import Policy
from smartsql.population import Population, digest
from smartsql.profile import Problem, Profile
from smartsql.types import FAILED, Ask, BoolArray, Candidate, Requirement

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
        """Answer all asks with one of two labels, which says nothing about who is right.

        Wrong candidates give the other label, so two of them may agree; one that is never right
        gives no usable answer.
        """
        for ask in asks:
            prompts = ask.prompts
            truth = labels(profile.problem.population.n_prompts)[prompts]
            if ask.model == REFERENCE:
                codes, cost = truth, 1.0
            else:
                wrong = self.wrong[ask.model]
                other = np.int32(FAILED) if wrong.all() else 1 - truth
                codes = np.where(wrong[prompts], other, truth).astype(np.int32)
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


@cache
def labels(rows: int) -> NDArray[np.int32]:
    """The reference's answers: one of two labels a row, drawn once for each size of table."""
    return np.random.default_rng(rows).integers(0, 2, rows, dtype=np.int32)


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
