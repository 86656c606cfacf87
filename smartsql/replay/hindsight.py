"""What hindsight could do: lower lines that no strategy can be expected to reach.

Each of these policies knows every answer before it asks. It pays for the calls that its plan
makes and for nothing that it would have had to find out, and it keeps the promise on every order
of the rows. They say how much of a saving is there, not how to get it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator

import numpy as np

from smartsql.policies import Steps
from smartsql.policies.smart_arithmetic import cheapest_pair
from smartsql.profile import Problem, Profile
from smartsql.replay.recording import Recording
from smartsql.types import FAILED, Ask, BoolArray, FloatArray, IntArray, Plan

Assigning = Generator[list[Ask], None, IntArray]


class Hindsight(ABC):
    """A policy that has read the recording.

    Args:
        truth: the recording that the replay answers from.
    """

    def __init__(self, truth: Recording) -> None:
        self.truth = truth

    @property
    @abstractmethod
    def name(self) -> str:
        """The strategy's name."""

    @abstractmethod
    def assign(self, problem: Problem) -> Assigning:
        """Ask what the plan needs beyond its final calls; return the position of each row's model.

        Rows answered by the wrong models must weigh at most `problem.tolerated`.
        """

    def steps(self, problem: Problem, profile: Profile) -> Steps:
        """The best assignment of its kind, with the share of rows that do differ as bound."""
        assigned = yield from self.assign(problem)
        wrong = ~self.agreements(problem)[assigned, np.arange(assigned.size)]
        differing = int(problem.population.weights[wrong].sum())
        return Plan(
            assigned,
            bound=differing / problem.population.n_rows,
            escalates_failures=False,
            notes=("decided in hindsight, from answers that nobody has before paying for them",),
        )

    def agreements(self, problem: Problem) -> BoolArray:
        """Whether each model is right on each row; shape (n_models, n_prompts)."""
        return np.stack([self.truth.agrees(model.name) for model in problem.models])

    def costs(self, problem: Problem) -> FloatArray:
        """Cost of each call; shape (n_models, n_prompts)."""
        return np.stack([self.truth.costs[model.name] for model in problem.models])


class OracleSingle(Hindsight):
    """The cheapest one model that is right often enough, on every row."""

    @property
    def name(self) -> str:
        """The strategy's name."""
        return "oracle-single"

    def assign(self, problem: Problem) -> Assigning:
        """One model for all rows; the reference where no other will do or none is cheaper."""
        yield from ()
        weights = problem.population.weights
        wrong = (~self.agreements(problem)) @ weights
        costs = np.where(wrong <= problem.tolerated, self.costs(problem).sum(axis=1), np.inf)
        return np.full(weights.size, int(np.argmin(costs)), dtype=np.int64)


class OracleMix(Hindsight):
    """The best blind mixture: shares of rows for each model, whatever the row.

    The linear program over true agreement rates names at most two models and their shares. The
    cheaper one takes the first rows of the random order. So that the promise is kept for certain
    and not in half of the orders, the place where it hands over is the last that keeps it.
    """

    @property
    def name(self) -> str:
        """The strategy's name."""
        return "oracle-mix"

    def assign(self, problem: Problem) -> Assigning:
        """The first rows to the less exact model, the others to the better one."""
        yield from ()
        population = problem.population
        right = self.agreements(problem)
        rates = (right @ population.weights) / population.n_rows
        everything = np.ones((rates.size, rates.size), dtype=np.bool_)
        better, worse, _ = cheapest_pair(
            np.asarray(rates),
            self.costs(problem).mean(axis=1),
            1.0 - problem.tolerated / population.n_rows,
            everything,
        )
        assigned = np.full(population.n_prompts, better, dtype=np.int64)
        if better == worse:
            return assigned
        order = np.argsort(population.first)
        weights = population.weights[order]
        gained = np.cumsum(weights * (~right[worse, order]))
        lost = np.cumsum(weights * (~right[better, order]))
        differing = np.concatenate([[0], gained - lost]) + lost[-1]
        handover = int(np.flatnonzero(differing <= problem.tolerated)[-1])
        assigned[order[:handover]] = worse
        return assigned


class OracleCascade(Hindsight):
    """The best threshold on the confidence of one cheaper model.

    That model is asked about every row, and verified where its confidence comes from a call of its
    own; rows below the threshold, and failed answers, go on to the reference.
    """

    @property
    def name(self) -> str:
        """The strategy's name."""
        return "oracle-cascade"

    def assign(self, problem: Problem) -> Assigning:
        """Ask the model with the best threshold about every row, keep what lies above it."""
        reference_costs = self.truth.costs[problem.reference.name]
        positions = {model.name: k for k, model in enumerate(problem.models)}
        judged = [(model.name, model.name) for model in problem.candidates]
        judged += [(model.name, model.after[0]) for model in problem.verifiers]
        best, chosen, kept = float(reference_costs.sum()), ("", ""), None
        for judge, model in judged:
            accepted = self._accepted(problem, judge)
            calls = sum(self.truth.costs[name].sum() for name in {judge, model})
            cost = calls + reference_costs[~accepted].sum()
            if cost < best:
                best, chosen, kept = float(cost), (judge, model), accepted
        assigned = np.zeros(problem.population.n_prompts, dtype=np.int64)
        if kept is not None:
            yield [Ask(chosen[0], np.arange(assigned.size, dtype=np.int64))]
            assigned[kept] = positions[chosen[1]]
        return assigned

    def _accepted(self, problem: Problem, model: str) -> BoolArray:
        """Rows kept under the lowest threshold that keeps the promise; equals stay together."""
        accepted: BoolArray = np.zeros(problem.population.n_prompts, dtype=np.bool_)
        if model not in self.truth.confidences:
            return accepted
        confidences = self.truth.confidences[model]
        usable = ~np.isnan(confidences) & (self.truth.codes[model] != FAILED)
        rows = np.flatnonzero(usable)
        rows = rows[np.argsort(-confidences[rows], kind="stable")]
        wrong = ~self.truth.agrees(self.truth.verifies.get(model, model))[rows]
        differing = np.cumsum(problem.population.weights[rows] * wrong)
        last_of_equals = np.append(np.diff(confidences[rows]) != 0, True)[: rows.size]
        ends = np.flatnonzero(last_of_equals & (differing <= problem.tolerated))
        if ends.size:
            accepted[rows[: ends[-1] + 1]] = True
        return accepted


class Clairvoyant(Hindsight):
    """For each row the cheapest model that is right, and the tolerated rows to the cheapest at all.

    The tolerated rows are those that save most for their weight, taken while they fit: exact when
    every row weighs 1.
    """

    @property
    def name(self) -> str:
        """The strategy's name."""
        return "clairvoyant"

    def assign(self, problem: Problem) -> Assigning:
        """The cheapest right model for each row but those that may differ."""
        yield from ()
        costs = self.costs(problem)
        right_costs = np.where(self.agreements(problem), costs, np.inf)
        assigned: IntArray = np.argmin(right_costs, axis=0)
        cheapest = np.argmin(costs, axis=0)
        rows = np.arange(assigned.size)
        saving = costs[assigned, rows] - costs[cheapest, rows]
        left, weights = problem.tolerated, problem.population.weights
        for row in np.argsort(-saving / weights, kind="stable"):
            if left == 0 or saving[row] <= 0.0:
                break
            if weights[row] <= left:
                assigned[row] = cheapest[row]
                left -= int(weights[row])
        return assigned
