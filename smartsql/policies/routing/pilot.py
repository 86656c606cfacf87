"""Which primary, which helpers: what a few rows say about the cost of routing with each.

The rows of a pilot carry the reference's answers. They train the predictions and choose the
configuration; no bet is ever made on them.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from smartsql.policies.exact.planning import PromptCounts, design_table, outlook, posterior
from smartsql.policies.routing import predictor
from smartsql.policies.routing.evidence import evidence
from smartsql.policies.routing.plan import lay_out, plan
from smartsql.policies.routing.tuning import RoutingTuning
from smartsql.profile import Problem, Profile
from smartsql.types import FAILED, Ask, Candidate, FloatArray, IntArray

PRIOR = (0.6, 2.4)
"""Beta prior of a candidate's error rate."""
NEARLY_FREE = 0.1
"""Calls of candidates below this share of the reference's are spent on all rows."""
SHARES = (0.7, 0.5, 0.35, 0.25)
"""Shares of the rows that may be in scope, beside all of them."""
BINS = 24
CAUTION = 4.0
"""Factor on the precisions of a fit to so few rows."""
LEVELS = (0.15, 0.5, 0.85)
"""Quantiles of the error rate at which a configuration is priced."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Who answers, and who is asked for evidence.

    Attributes:
        primary: name of the candidate whose answers are deployed.
        helpers: names of candidates whose answers are evidence.
        cost: expected cost of everything after the pilot, in calls of the reference.
        calls: part of it that the candidates' calls cost.
        error: expected error rate of the primary.
        share: share of the rows that are in scope; the reference answers the others unseen.
        guided: some evidence is expected to tell errors.
    """

    primary: str
    helpers: tuple[str, ...]
    cost: float
    calls: float
    error: float
    share: float = 1.0
    guided: bool = True


@dataclass
class Pilot:
    """A pilot and what it shows.

    Attributes:
        candidates: those that may answer.
        size: rows of the random order that were asked.
    """

    tuning: RoutingTuning
    problem: Problem
    profile: Profile
    candidates: list[Candidate]
    size: int = 0

    def run(self) -> Generator[list[Ask], None, list[Configuration]]:
        """Look at a few rows; configurations that were priced, the cheapest first."""
        live = self._cheap()
        tried: set[str] = set()
        ranked: list[Configuration] = []
        for size in self._sizes():
            if self.size and size * sum(self.price(m.name) for m in live) > self._room(3.0):
                break
            self.size = size
            yield self._asks(live)
            tried |= {model.name for model in live}
            ranked = self._ranked(live)
            dear = [m for m in self.candidates if m.name not in tried and self._tempts(m, ranked)]
            if dear:
                live = [*live, *dear]
                tried |= {model.name for model in dear}
                yield self._asks(live)
                ranked = self._ranked(live)
                continue
            reach = ranked[0].cost + self.tuning.reach * self._left()
            singles = {c.primary: c.cost for c in reversed(ranked)}
            live = [m for m in live if singles[m.name] <= reach]
            if len(live) < 2:
                break
        return ranked

    def _sizes(self) -> list[int]:
        """Numbers of rows after which the configurations are weighed."""
        tuning = self.tuning
        most = min(tuning.pilot_most, max(1, self.problem.population.n_rows // 20))
        first = min(tuning.pilot, most)
        return list(range(first, most + 1, tuning.pilot_step))

    def _room(self, factor: float) -> float:
        """What candidates may cost in a pilot, in calls of the reference."""
        return factor * self.tuning.pilot_share * self.problem.population.n_rows

    def _tempts(self, model: Candidate, ranked: list[Configuration]) -> bool:
        """Whether a dearer candidate may be worth a look."""
        return ranked[0].cost / self._left() > self.price(model.name) + self.tuning.probe

    @property
    def prompts(self) -> IntArray:
        """Distinct prompts of the pilot, by their place in the secret order."""
        prompts = np.unique(self.problem.population.order[: self.size])
        return prompts[np.argsort(self.problem.population.first[prompts])]

    def price(self, model: str) -> float:
        """Cost of a call of the model in calls of the reference, on the prompts both were asked."""
        prompts = self.prompts
        mine = self.profile.known(model, prompts)
        both = prompts[mine]
        theirs = float(self.profile.costs(self.problem.reference.name)[both].sum())
        own = float(self.profile.costs(model)[both].sum())
        expected = {m.name: m.expected_cost for m in self.problem.models}
        if theirs <= 0.0 or own <= 0.0:
            return expected[model] / max(expected[self.problem.reference.name], 1e-300)
        return own / theirs

    def _left(self) -> float:
        """Distinct prompts after the pilot."""
        return float(self.problem.population.n_prompts - self.prompts.size)

    def _cheap(self) -> list[Candidate]:
        """Candidates that are looked at from the start."""
        room = self._room(1.0)
        chosen: list[Candidate] = []
        ordered = sorted(self.candidates, key=lambda m: m.expected_cost)
        for model in ordered:
            price = self.price(model.name)
            if price <= self.tuning.cheap and self.tuning.pilot * price <= room:
                chosen.append(model)
                room -= self.tuning.pilot * price
        return chosen or ordered[:1]

    def _asks(self, live: list[Candidate]) -> list[Ask]:
        prompts = self.prompts
        names = [self.problem.reference.name, *(m.name for m in live)]
        return [Ask(name, prompts) for name in names]

    # ---- pricing

    def _ranked(self, live: list[Candidate]) -> list[Configuration]:
        """Configurations of the live candidates, cheapest first."""
        names = [m.name for m in live]
        singles = sorted((self.priced(name, ()) for name in names), key=lambda c: c.cost)
        found = list(singles)
        for single in singles[:3]:
            base = single
            for _ in range(2):
                more = [
                    self.priced(single.primary, (*base.helpers, name))
                    for name in names
                    if name != single.primary
                    and name not in base.helpers
                    and base.calls + self.price(name) * self._left() < base.cost
                ]
                if not more:
                    break
                found += more
                better = min(more, key=lambda c: c.cost)
                if better.cost >= base.cost:
                    break
                base = better
        best = min(found, key=lambda c: c.cost)
        if best.calls > NEARLY_FREE * self._left():
            found += [self.priced(best.primary, best.helpers, share) for share in SHARES]
        return sorted(found, key=lambda c: c.cost)

    def priced(self, primary: str, helpers: tuple[str, ...], share: float = 1.0) -> Configuration:
        """What a configuration is expected to cost after the pilot."""
        prompts = self.prompts
        for name in (primary, *helpers):
            prompts = prompts[self.profile.known(name, prompts)]
        usable = prompts[self.profile.codes(primary)[prompts] != FAILED]
        failures = 1.0 - (usable.size + 1.0) / (prompts.size + 1.0)
        unseen = (1.0 - share) * self._left()
        left = share * self._left()
        calls = left * sum(self.price(name) for name in (primary, *helpers))
        wrong = self.profile.disagrees(primary, usable).astype(np.float64)
        if usable.size == 0:
            return Configuration(primary, helpers, calls + left + unseen, calls, 1.0, share)
        known = evidence(self.profile, primary, helpers, usable)
        beta = predictor.fit(known.x, wrong, known.prior, CAUTION * known.precision)
        z = known.x @ beta
        levels = self._levels(float(wrong.sum()), usable.size)
        rows = left * (1.0 - failures)
        own = self.profile.costs(primary)[usable]
        paid = self.profile.costs(self.problem.reference.name)[usable]
        price = predictor.prices(own, own, paid)
        costs = [self._planned(z, price, level, rows) for level in levels]
        cost = calls + unseen + left * failures + float(np.mean(costs))
        level = float(np.mean(levels))
        return Configuration(primary, helpers, cost, calls, level, share, known.guided)

    def _levels(self, wrong: float, n: int) -> FloatArray:
        """Error rates that a candidate may have."""
        from scipy.special import betaincinv

        a, b = PRIOR[0] + wrong, PRIOR[1] + n - wrong
        return np.asarray(betaincinv(a, b, np.array(LEVELS)))

    def _planned(self, z: FloatArray, price: FloatArray, level: float, rows: float) -> float:
        """Expected calls of the reference if the mean error rate is `level`."""
        low, high = -12.0, 12.0
        for _ in range(30):
            middle = (low + high) / 2
            over = float(predictor.sigmoid(z + middle).mean()) > level
            low, high = (low, middle) if over else (middle, high)
        p = np.clip(predictor.sigmoid(z + low), predictor.LEAST_RATE, predictor.MOST_RATE)
        each = rows / p.size
        layout = lay_out(p, np.full(p.size, each), price, BINS)
        # a row of the pilot stands for many
        layout.items[:] = layout.mass
        needed = float(-np.log(self.problem.requirement.alpha))
        return plan(layout, self.problem.tolerated, 0.0, None, needed).cost

    def exact(self) -> Configuration | None:
        """The candidate whose plain audit is expected to be the cheapest, if any."""
        population = self.problem.population
        table = design_table(
            population.n_rows, self.problem.tolerated, self.problem.requirement.alpha
        )
        ahead = outlook(table, PromptCounts(population), self.size)
        found = []
        for model in self.candidates:
            prompts = self.prompts[self.profile.known(model.name, self.prompts)]
            if prompts.size < self.prompts.size or self.price(model.name) >= 1.0:
                continue
            wrong = float(self.profile.disagrees(model.name, prompts).sum())
            failures = float((self.profile.codes(model.name)[prompts] == FAILED).mean())
            price = self.price(model.name)
            weights = posterior(
                table.rates, wrong + PRIOR[0] - 0.5, prompts.size + sum(PRIOR) - 3.5
            )
            cost = float((ahead.costs(price, price + failures) @ weights).min())
            found.append(Configuration(model.name, (), cost, 0.0, wrong / prompts.size))
        return min(found, key=lambda c: c.cost, default=None)

    def free(self) -> Configuration:
        """The cheapest candidate on as many rows as may be wrong, the reference on the rest."""
        left = self._left()
        rows = float(self.problem.tolerated)
        usable = [m.name for m in self.candidates if self.price(m.name) < 1.0]
        if not usable:
            return Configuration("", (), left, 0.0, 0.0)
        name = min(usable, key=self.price)
        calls = rows * self.price(name)
        return Configuration(name, (), left - rows + calls, calls, 0.0)
