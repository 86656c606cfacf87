"""What a configuration is expected to cost, from the rows of a pilot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from smartsql.policies.exact.planning import PromptCounts, design_table, outlook, posterior
from smartsql.policies.routing import predictor
from smartsql.policies.routing.courses import (
    ASK_SECOND,
    Part,
    courses_for,
    evidence_of,
    second_rates,
)
from smartsql.policies.routing.evidence import Evidence, evidence
from smartsql.policies.routing.plan import Layout, expected_costs, lay_out
from smartsql.profile import Problem, Profile
from smartsql.types import FAILED, BoolArray, FloatArray, IntArray

PRIOR = (0.6, 2.4)
"""Beta prior of a candidate's error rate."""
BINS = 24
CAUTION = 4.0
"""Factor on the precisions of a fit to so few rows."""
LEVELS = (0.15, 0.5, 0.85)
"""Quantiles of the error rate at which a configuration is priced."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Who answers, and who is asked for evidence.

    Attributes:
        primary: name of the candidate that answers first.
        helpers: names of candidates and verifiers that are asked about the same rows for evidence.
        cost: expected cost of everything after the pilot, in calls of the reference.
        calls: part of it that the candidates' calls cost.
        error: expected error rate of the plan's answers.
        share: share of the rows that are in scope; the reference answers the others unseen.
        guided: some evidence is expected to tell errors.
        second: the candidate that answers groups of rows where the primary is likely wrong.
        budget: errors expected to be left after that, in multiples of the tolerated ones.
    """

    primary: str
    helpers: tuple[str, ...]
    cost: float
    calls: float
    error: float
    share: float = 1.0
    guided: bool = True
    second: str | None = None
    budget: float = 0.0


Wanted = tuple[str, tuple[str, ...]] | tuple[str, tuple[str, ...], float]
"""Primary, helpers and, if not all rows are in scope, their share."""


@dataclass(frozen=True, slots=True)
class Pricing:
    """Prices of configurations after a pilot.

    Attributes:
        prompts: those of the pilot, by their place in the secret order; shape (n,).
        size: rows of the random order that these are.
    """

    problem: Problem
    profile: Profile
    prompts: IntArray
    size: int

    @property
    def left(self) -> float:
        """Distinct prompts after the pilot."""
        return float(self.problem.population.n_prompts - self.prompts.size)

    def price(self, model: str) -> float:
        """Cost of a call of the model in calls of the reference, on the prompts both were asked."""
        mine = self.profile.known(model, self.prompts)
        both = self.prompts[mine]
        theirs = float(self.profile.costs(self.problem.reference.name)[both].sum())
        own = float(self.profile.costs(model)[both].sum())
        if theirs <= 0.0 or own <= 0.0:
            expected = {m.name: m.expected_cost for m in self.problem.callable}
            return expected[model] / max(expected[self.problem.reference.name], 1e-300)
        return own / theirs

    def prices(self, names: tuple[str, ...]) -> float:
        """Cost of asking several models about a row, with all that goes into their prompts."""
        return sum(self.price(name) for name in self.problem.calls_of(*names))

    def known(self, names: tuple[str, ...]) -> IntArray:
        """Prompts of the pilot that all of these were asked."""
        prompts = self.prompts
        for name in names:
            prompts = prompts[self.profile.known(name, prompts)]
        return prompts

    def priced(self, wanted: Sequence[Wanted]) -> list[Configuration]:
        """What configurations with one primary are expected to cost after the pilot.

        Args:
            wanted: primary, helpers, and share of the rows in scope of each.
        """
        drafts = [self._draft(*one) for one in wanted]
        repairs = self._repairs([scenarios for _, scenarios in drafts])
        return [
            replace(draft, cost=draft.cost + repair)
            for (draft, _), repair in zip(drafts, repairs, strict=True)
        ]

    def _draft(
        self, primary: str, helpers: tuple[str, ...], share: float = 1.0
    ) -> tuple[Configuration, list[Layout]]:
        """A configuration without the cost of its repairs, and the scenarios of these."""
        names = (primary, *helpers)
        prompts = self.known(names)
        usable = prompts[self.profile.codes(primary)[prompts] != FAILED]
        failures = 1.0 - (usable.size + 1.0) / (prompts.size + 1.0)
        unseen, left = (1.0 - share) * self.left, share * self.left
        calls = left * self.prices(names)
        if usable.size == 0:
            return Configuration(primary, helpers, calls + self.left, calls, 1.0, share, False), []
        wrong = self.profile.disagrees(primary, usable).astype(np.float64)
        known = evidence(self.profile, primary, helpers, usable)
        own = self.profile.costs(primary)[usable]
        scenarios, level = self._scenarios(known, wrong, own, usable, left * (1.0 - failures))
        cost = calls + unseen + left * failures
        return Configuration(primary, helpers, cost, calls, level, share, known.guided), scenarios

    def with_second(self, base: Configuration, second: str, budget: float) -> Configuration | None:
        """The same with a second candidate where it pays; None where it pays nowhere or everywhere.

        Args:
            base: a configuration of one primary over all rows.
            budget: errors left, in multiples of the tolerated ones.
        """
        names = (base.primary, *base.helpers)
        prompts = self.known((*names, second))
        asked = self.asked_second(base, second, budget, prompts)
        if not asked.any() or asked.all():
            return None
        accepted = Part(base.primary, base.helpers, prompts[~asked])
        passed = Part(second, names, prompts[asked])
        parts = (accepted, passed)
        answers = np.where(
            asked, self.profile.codes(second)[prompts], self.profile.codes(base.primary)[prompts]
        )
        fine = answers != FAILED
        failures = 1.0 - (fine.sum() + 1.0) / (fine.size + 1.0)
        share = float(asked.mean())
        more = self.prices((*names, second)) - self.prices(names)
        calls = self.left * (self.prices(names) + share * more)
        usable = prompts[fine]
        if usable.size == 0:
            return None
        wrong = np.where(
            asked,
            self.profile.disagrees(second, prompts),
            self.profile.disagrees(base.primary, prompts),
        )[fine].astype(np.float64)
        own = self.profile.costs(base.primary)[usable]
        known = evidence_of(self.profile, parts, usable)
        scenarios, level = self._scenarios(known, wrong, own, usable, self.left * (1.0 - failures))
        cost = calls + self.left * failures + self._repairs([scenarios])[0]
        return replace(base, cost=cost, calls=calls, error=level, second=second, budget=budget)

    def asked_second(
        self, base: Configuration, second: str, budget: float, prompts: IntArray
    ) -> BoolArray:
        """Which prompts of the pilot would be passed to the second candidate."""
        if prompts.size < 2:
            return np.zeros(prompts.size, dtype=np.bool_)
        first = self.profile.disagrees(base.primary, prompts).astype(np.float64)
        other = self.profile.disagrees(second, prompts).astype(np.float64)
        known = evidence(self.profile, base.primary, base.helpers, prompts)
        risk = risk_of(known, known, first)
        course = courses_for(
            predictor.sigmoid(risk),
            second_rates(risk, other, risk),
            np.full(prompts.size, self.left / prompts.size),
            self.prices((second,)),
            budget * self.problem.tolerated,
            whole=False,
        )
        return np.asarray(course == ASK_SECOND)

    def _scenarios(
        self, known: Evidence, wrong: FloatArray, own: FloatArray, prompts: IntArray, rows: float
    ) -> tuple[list[Layout], float]:
        """The rows laid out at several error rates, equally likely, and the mean rate."""
        beta = predictor.fit(known.x, wrong, known.prior, CAUTION * known.precision)
        z = known.x @ beta
        paid = self.profile.costs(self.problem.reference.name)[prompts]
        price = predictor.prices(own, own, paid)
        levels = error_levels(float(wrong.sum()), wrong.size)
        layouts = [_layout(shifted(z, level), price, rows) for level in levels.tolist()]
        return layouts, float(np.mean(levels))

    def _repairs(self, scenarios: Sequence[list[Layout]]) -> list[float]:
        """Expected calls of the reference in each list of scenarios; 0 for an empty one."""
        needed = float(-np.log(self.problem.requirement.alpha))
        costs = [0.0] * len(scenarios)
        by_bins: dict[int, list[int]] = {}
        for k, layouts in enumerate(scenarios):
            if layouts:
                by_bins.setdefault(layouts[0].p.size, []).append(k)
        for alike in by_bins.values():
            # those with as many bins are reckoned at once
            layouts = [layout for k in alike for layout in scenarios[k]]
            found = expected_costs(layouts, self.problem.tolerated, needed)
            for k, mean in zip(alike, found.reshape(len(alike), -1).mean(axis=1), strict=True):
                costs[k] = float(mean)
        return costs

    def exact(self, names: list[str]) -> Configuration | None:
        """The candidate whose plain audit is expected to be the cheapest, if any."""
        population = self.problem.population
        table = design_table(
            population.n_rows, self.problem.tolerated, self.problem.requirement.alpha
        )
        ahead = outlook(table, PromptCounts(population), self.size)
        found = []
        for name in names:
            prompts = self.known((name,))
            if prompts.size < self.prompts.size or self.prices((name,)) >= 1.0:
                continue
            wrong = float(self.profile.disagrees(name, prompts).sum())
            failures = float((self.profile.codes(name)[prompts] == FAILED).mean())
            price = self.prices((name,))
            weights = posterior(
                table.rates, wrong + PRIOR[0] - 0.5, prompts.size + sum(PRIOR) - 3.5
            )
            cost = float((ahead.costs(price, price + failures) @ weights).min())
            found.append(Configuration(name, (), cost, 0.0, wrong / prompts.size))
        return min(found, key=lambda c: c.cost, default=None)

    def free(self, names: list[str]) -> Configuration:
        """The cheapest candidate on as many rows as may be wrong, the reference on the rest."""
        rows = float(self.problem.tolerated)
        usable = [name for name in names if self.prices((name,)) < 1.0]
        if not usable:
            return Configuration("", (), self.left, 0.0, 0.0)
        price, name = min((self.prices((name,)), name) for name in usable)
        calls = rows * price
        return Configuration(name, (), self.left - rows + calls, calls, 0.0)


def _layout(rates: FloatArray, price: FloatArray, rows: float) -> Layout:
    """The rows of a pilot, each standing for as many of `rows`."""
    p = np.clip(rates, predictor.LEAST_RATE, predictor.MOST_RATE)
    layout = lay_out(p, np.full(p.size, rows / p.size), price, BINS)
    return replace(layout, items=layout.mass)


def error_levels(wrong: float, n: int) -> FloatArray:
    """Error rates that a candidate may have."""
    from scipy.special import betaincinv

    a, b = PRIOR[0] + wrong, PRIOR[1] + n - wrong
    return np.asarray(betaincinv(a, b, np.array(LEVELS)))


def risk_of(rows: Evidence, labelled: Evidence, wrong: FloatArray) -> FloatArray:
    """Log-odds of an error on `rows`, at the mean that is expected after the labels.

    Args:
        rows: evidence about the rows; the same columns as `labelled`.
        wrong: whether each labelled row is an error.
    """
    beta = predictor.fit(labelled.x, wrong, labelled.prior, CAUTION * labelled.precision)
    level = float(np.mean(error_levels(float(wrong.sum()), wrong.size)))
    p = np.clip(shifted(rows.x @ beta, level), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(p / (1 - p)))


def shifted(z: FloatArray, level: float) -> FloatArray:
    """Rates of the log-odds, moved such that their mean is `level`, to 1e-4 of the log-odds."""
    low, high = -12.0, 12.0
    for _ in range(18):
        middle = (low + high) / 2
        over = float(predictor.sigmoid(z + middle).mean()) > level
        low, high = (low, middle) if over else (middle, high)
    return predictor.sigmoid(z + low)
