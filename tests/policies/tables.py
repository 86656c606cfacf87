"""Tables whose truth is known, for tests of policies: answers are arrays, prices are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from smartsql.executor import Outcome, run
from smartsql.policies import Policy
from smartsql.policies.exact.exact import Exact
from smartsql.population import Population, digest
from smartsql.profile import Problem, Profile
from smartsql.types import FAILED, Ask, Candidate, IntArray, Requirement

REFERENCE = "reference"


@dataclass
class Table:
    """Answer codes by model, and what one call costs.

    A learning model answers from `codes` too, but the labels it was trained on are recorded.
    """

    codes: Mapping[str, IntArray]
    costs: Mapping[str, float]
    learns: frozenset[str] = frozenset()
    expected: Mapping[str, float] = field(default_factory=dict)
    batches: list[list[Ask]] = field(default_factory=list)
    labels: list[tuple[str, IntArray, IntArray]] = field(default_factory=list)

    def fulfil(self, asks: Sequence[Ask], profile: Profile) -> None:
        self.batches.append(list(asks))
        known = np.flatnonzero(profile.codes(REFERENCE) >= 0)
        for ask in asks:
            if ask.fit:
                self.labels.append((ask.model, known, ask.prompts))
        for ask in asks:
            codes = self.codes[ask.model][ask.prompts].astype(np.int32)
            cost = np.full(ask.prompts.size, self.costs[ask.model])
            profile.record(ask.model, ask.prompts, codes, cost)

    def problem(self, delta: float, population: Population, gamma: float = 0.95) -> Problem:
        models = [
            Candidate(name, self.expected.get(name, cost), learns=name in self.learns)
            for name, cost in self.costs.items()
        ]
        return Problem(Requirement(delta, gamma), population, models[0], tuple(models[1:]))


def wrong_at(*positions: IntArray | range, rows: int) -> IntArray:
    """Codes that disagree with the reference's 0 on the given rows."""
    codes = np.zeros(rows, dtype=np.int64)
    for some in positions:
        codes[np.asarray(some, dtype=np.int64)] = 1
    return codes


def table(rows: int, /, **candidates: tuple[float, IntArray]) -> Table:
    """A table with a reference of cost 1 and candidates of (cost, codes)."""
    codes = {REFERENCE: np.zeros(rows, dtype=np.int64)}
    costs = {REFERENCE: 1.0}
    for name, (cost, answers) in candidates.items():
        codes[name], costs[name] = np.asarray(answers), cost
    return Table(codes, costs)


def digests(rows: int) -> np.ndarray:
    """Digests of the row numbers."""
    halves = np.frombuffer(b"".join(digest(str(row)) for row in range(rows)), dtype=">u8")
    return halves.reshape(-1, 2).astype(np.uint64)


def shuffled(rows: int, seed: int) -> Population:
    """Rows with a prompt of their own in the engine's random order."""
    return Population.shuffled(digests(rows), np.ones(rows, dtype=np.int64), seed)


def solve(
    data: Table, delta: float, population: Population, policy: Policy | None = None
) -> Outcome:
    """Run the certified policy, or another one."""
    return run(policy or Exact(), data.problem(delta, population), data)


def wrong_rows(data: Table, outcome: Outcome) -> int:
    """Rows, with their weights, that carry an answer other than the reference's."""
    problem = outcome.profile.problem
    truth, wrong = data.codes[REFERENCE], 0
    for position, model in enumerate(problem.models):
        mine = outcome.answered_by == position
        answers = data.codes[model.name]
        differs = (answers != truth) | (answers == FAILED)
        wrong += int(problem.population.weights[mine & differs].sum())
    return wrong


def cost_ratio(outcome: Outcome) -> float:
    """Spend relative to the reference on every distinct prompt."""
    problem = outcome.profile.problem
    spend = sum(float(outcome.profile.costs(m.name).sum()) for m in problem.models)
    return spend / problem.population.n_prompts
