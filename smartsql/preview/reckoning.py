"""How many calls of each model a statement takes: at least, expected, at most.

Nothing was asked yet. What is known: rows, how many of them may differ, what calls cost.

* At least: some candidate answers every row, and the reference as few as any valid audit looks at.
  If the first a of N rows (in random order) agree, the chance to see that with d + 1 wrong rows is
  at most alpha only from a = N (1 - alpha^(1/(d+1))) on; no promise can be kept with fewer. Or the
  candidate answers the d rows that may all be wrong, if that is cheaper.
* At most: the pilot showed a candidate in too good a light, so that its calls were made on all
  rows, and then the reference is asked about all but the rows that may be wrong.
* Expected: the mean over what the error rates of candidates usually are, with the designs of the
  exact audit, which routing comes near where evidence is of little use and undercuts elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from smartsql.policies.eligible import eligible
from smartsql.policies.exact.planning import PromptCounts, design_table, outlook, posterior
from smartsql.profile import Problem
from smartsql.types import Candidate

PILOT_ROWS = 15
"""A usual pilot, for the estimate only."""
SHORTEST_PILOT = 6
LONG_PILOT = 0.02
"""Share of the rows on which candidates are tried that are not used in the end."""
CHEAP_ROWS = 0.7
"""The rows that an audit draws may be the cheaper ones: least cost, relative to the mean."""
MOST = 1.3
"""More than this share of asking the reference alone is not reckoned with."""


ROUNDS = (1, 10, 30)
"""Round trips beside the bulk of the calls: at least, usually, at most."""


@dataclass(frozen=True, slots=True)
class Calls:
    """Numbers of calls by model, the reference among them, in one case."""

    by_model: Mapping[str, float]

    def cost(self, prices: Mapping[str, float]) -> float:
        """What they cost at the prices of a call."""
        return sum(calls * prices[name] for name, calls in self.by_model.items())


@dataclass(frozen=True, slots=True)
class Reckoning:
    """Calls in three cases."""

    low: Calls
    expected: Calls
    high: Calls

    @property
    def cases(self) -> tuple[Calls, Calls, Calls]:
        """At least, expected, at most."""
        return self.low, self.expected, self.high


def reckon(problem: Problem) -> Reckoning:
    """The calls of a statement, as if nothing had been paid for yet.

    Reads nothing but the numbers of rows and the expected costs of the problem.
    """
    usable, _ = eligible(problem)
    n = float(problem.population.n_prompts)
    reference = problem.reference.name
    if not usable:
        everything = Calls({reference: n})
        return Reckoning(everything, everything, everything)
    ahead = _Ahead(problem, usable)
    low, expected, high = ahead.low(), ahead.expected(), ahead.high()
    prices = {model.name: model.expected_cost for model in problem.callable}
    # whatever is expected, it lies between the bounds
    if expected.cost(prices) < low.cost(prices):
        expected = low
    elif expected.cost(prices) > high.cost(prices):
        expected = high
    return Reckoning(low, expected, high)


class _Ahead:
    """What candidates may be asked, and what the reference is asked besides."""

    def __init__(self, problem: Problem, usable: list[Candidate]) -> None:
        self.problem, self.usable = problem, usable
        self.counts = PromptCounts(problem.population)
        self.n = float(problem.population.n_prompts)
        self.costs = {model.name: model.expected_cost for model in problem.callable}
        self.reference = problem.reference.name
        self.free = min(self.n, problem.tolerated * self.n / problem.population.n_rows)

    def price(self, name: str) -> float:
        """Cost of a candidate's answer with all that goes into it, in calls of the reference."""
        calls = self.problem.calls_of(name)
        return sum(self.costs[call] for call in calls) / self.costs[self.reference]

    def calls(self, name: str, count: float, references: float) -> dict[str, float]:
        """So many answers of a candidate, and calls of the reference."""
        return {
            self.reference: references,
            **dict.fromkeys(self.problem.calls_of(name), count),
        }

    def low(self) -> Calls:
        """The fewest that keep the promise."""
        n_rows, alpha = self.problem.population.n_rows, self.problem.requirement.alpha
        audits = n_rows * (1 - alpha ** (1 / (self.problem.tolerated + 1)))
        fewest = float(self.counts.seen(min(n_rows, int(audits) + SHORTEST_PILOT)))
        cases = []
        for model in self.usable:
            cases.append(self.calls(model.name, CHEAP_ROWS * self.n, CHEAP_ROWS * fewest))
            unchecked = self.n - self.free
            cases.append(self.calls(model.name, CHEAP_ROWS * self.free, CHEAP_ROWS * unchecked))
        return min((Calls(case) for case in cases), key=lambda calls: calls.cost(self.costs))

    def expected(self) -> Calls:
        """The mean over usual error rates, with the candidate that is then the cheapest."""
        population, requirement = self.problem.population, self.problem.requirement
        table = design_table(population.n_rows, self.problem.tolerated, requirement.alpha)
        look = outlook(table, self.counts, min(PILOT_ROWS, population.n_rows // 4))
        prior = posterior(table.rates, 0, 0)
        found = []
        for model in self.usable:
            price = self.price(model.name)
            costs = look.costs(price, price)
            best = costs.argmin(axis=0), np.arange(table.rates.size)
            freed, audited = float(look.freed[best] @ prior), float(look.audited[best] @ prior)
            found.append((float(costs[best] @ prior), model.name, freed, audited))
        _, name, freed, audited = min(found)
        pilot = self.n - look.remaining
        calls = dict.fromkeys(self.costs, 0.0)
        for model in self.usable:
            for call in self.problem.calls_of(model.name):
                calls[call] = pilot
        for call in self.problem.calls_of(name):
            calls[call] = pilot + freed + audited
        calls[self.reference] = self.n - freed
        return Calls(calls)

    def high(self) -> Calls:
        """All calls of candidates made in vain, then the reference on all that is not free."""
        calls = dict.fromkeys(self.costs, LONG_PILOT * self.n)
        judges = {judge.name: judge.after[0] for judge in self.problem.verifiers}
        asked = [model.name for model in self.usable]
        asked += [name for name, judged in judges.items() if judged in asked]
        # the rows that are spared may be cheap ones
        calls[self.reference] = self.n - CHEAP_ROWS * self.free
        for call in self.problem.calls_of(min(asked, key=self.price)):
            calls[call] += self.free
        room = MOST * self.n - Calls(calls).cost(self._relative())
        for name in sorted(asked, key=self.price):
            price = max(self.costs[name] / self.costs[self.reference], 1e-12)
            more = min(self.n - calls[name], max(0.0, room) / price)
            calls[name] += more
            room -= more * price
        return Calls(calls)

    def _relative(self) -> dict[str, float]:
        """Costs in calls of the reference."""
        return {name: cost / self.costs[self.reference] for name, cost in self.costs.items()}
