"""The rows of the random order that were asked so far, and what they showed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from smartsql.policies.exact.planning import PromptCounts
from smartsql.profile import Problem, Profile
from smartsql.types import FAILED, Ask, Candidate, IntArray


class Sample:
    """Rows from the start of the order; only rows before a given one are ever looked at.

    A decision that is taken at row n may rest on rows before n alone, although more may have
    been asked ahead. All figures therefore take the row up to which they may look.

    Attributes:
        asked: rows that the reference was asked, from the start of the order.
        since: row from which each candidate was asked.
        until: row up to which each candidate was asked.
    """

    def __init__(self, problem: Problem, profile: Profile) -> None:
        self.problem = problem
        self.profile = profile
        self.counts = PromptCounts(problem.population)
        self.asked = 0
        self.since: dict[str, int] = {}
        self.until: dict[str, int] = {}
        self._expected = {model.name: model.expected_cost for model in problem.callable}
        self._unit_costs: dict[tuple[str, int, int], float] = {}

    def extend(self, models: Iterable[Candidate], end: int, *, fit: bool) -> list[Ask]:
        """Asks for the rows up to `end`, of the reference and some candidates.

        With `fit`, learning candidates are trained first, on what the reference has answered
        before; so they never know the rows that they are asked.
        """
        order = self.problem.population.order
        asks = [Ask(self.problem.reference.name, _distinct(order[self.asked : end]))]
        for model in models:
            start = self.until.get(model.name, self.asked if model.learns else 0)
            self.since.setdefault(model.name, start)
            self.until[model.name] = end
            asks.append(Ask(model.name, _distinct(order[start:end]), fit=fit and model.learns))
        self.asked = max(self.asked, end)
        return asks

    def errors(self, model: str, start: int, stop: int) -> int:
        """Rows from `start` to `stop` on which the model disagrees with the reference."""
        rows = self.problem.population.order[start:stop]
        return int(self.profile.disagrees(model, rows).sum())

    def failures(self, model: str, stop: int) -> float:
        """Share of the rows before `stop` on which the model gave no usable answer."""
        start = self.since.get(model, stop)
        rows = self.problem.population.order[start : min(stop, self.until.get(model, stop))]
        return float((self.profile.codes(model)[rows] == FAILED).mean()) if rows.size else 0.0

    def unit_cost(self, model: str, stop: int) -> float:
        """Mean cost of the model's calls before `stop`, or what is expected of one."""
        reached = self.until.get(model, self.asked)
        key = (model, stop, min(stop, reached))
        if key not in self._unit_costs:
            self._unit_costs[key] = self._unit_cost(model, stop)
        return self._unit_costs[key]

    def _unit_cost(self, model: str, stop: int) -> float:
        """`unit_cost` from the profile."""
        prompts = _distinct(self.problem.population.order[:stop])
        known = prompts[self.profile.known(model, prompts)]
        mean = float(self.profile.costs(model)[known].mean()) if known.size else 0.0
        if mean > 0.0:
            return mean
        # calls that were free tell nothing of the price: they may have been paid for earlier
        return self._expected[model]

    def relative_cost(self, model: str, stop: int) -> float:
        """Cost of asking the model in calls of the reference, from rows before `stop`.

        What goes into its prompt is asked as well.
        """
        reference = self.unit_cost(self.problem.reference.name, stop)
        calls = self.problem.calls_of(model)
        return sum(self.unit_cost(name, stop) for name in calls) / reference


def _distinct(rows: IntArray) -> IntArray:
    """Distinct prompts, ascending."""
    return np.unique(rows)
