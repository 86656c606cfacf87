"""Which primary, which helpers: a few rows to weigh the configurations on.

The rows of a pilot carry the reference's answers. They train the predictions and choose the
configuration; no bet is ever made on them.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace

import numpy as np

from smartsql.policies.routing.pricing import Configuration, Pricing, Wanted
from smartsql.policies.routing.tuning import RoutingTuning
from smartsql.profile import Problem, Profile
from smartsql.types import Ask, Candidate, IntArray

NEARLY_FREE = 0.1
"""Calls of candidates below this share of the reference's are spent on all rows."""
SHARES = (0.7, 0.5, 0.35, 0.25)
"""Shares of the rows that may be in scope, beside all of them."""
BUDGETS = (1.0, 2.0, 4.0)
"""Errors that a second candidate may leave, in multiples of the tolerated ones."""

LOOKS = 6
"""Looks of a pilot at most."""
LADDER_MARGIN = 0.98
"""A second candidate must be predicted to cost less than this share of the best without one: of
many that were priced on few rows, the cheapest was also the luckiest."""


@dataclass
class Pilot:
    """A pilot and what it shows.

    Attributes:
        candidates: those that may answer.
        size: rows of the random order that were asked.
        learners: candidates that learn from the reference's answers.
        judges: verifiers that are looked at.
    """

    tuning: RoutingTuning
    problem: Problem
    profile: Profile
    candidates: list[Candidate]
    size: int = 0
    learners: list[Candidate] = field(default_factory=list)
    judges: list[Candidate] = field(default_factory=list)

    def run(self) -> Generator[list[Ask], None, list[Configuration]]:
        """Look at a few rows; configurations that were priced, the cheapest first."""
        live = self._cheap()
        tried: set[str] = set()
        ranked: list[Configuration] = []
        for size in self._sizes():
            asked = [*live, *self.judges]
            if self.size and size * sum(self._price(m) for m in asked) > self._room(3.0):
                break
            self.size = size
            yield self._asks(asked)
            tried |= {model.name for model in live}
            if self.pricing.left < 1.0:
                return []
            ranked = self._ranked(live)
            dear = [m for m in self.candidates if m.name not in tried and self._tempts(m, ranked)]
            judges = self._judges(ranked)
            if dear or judges:
                live = [*live, *dear]
                tried |= {model.name for model in dear}
                self.judges += judges
                first = self.prompts[: self.first]
                yield [*self._asks(self.judges), *(Ask(m.name, first) for m in dear)]
                ranked = self._ranked(live)
            live = self._within_reach(live, ranked)
            if (len(live) < 2 and not self.judges) or self._blind(ranked):
                break
        ranked = yield from self._taught(live, ranked)
        return self._completed(ranked)

    @property
    def prompts(self) -> IntArray:
        """Distinct prompts of the pilot, by their place in the secret order."""
        prompts = np.unique(self.problem.population.order[: self.size])
        return prompts[np.argsort(self.problem.population.first[prompts])]

    @property
    def pricing(self) -> Pricing:
        """Prices by all rows so far."""
        return Pricing(self.problem, self.profile, self.prompts, self.size)

    def exact(self) -> Configuration | None:
        """The candidate whose plain audit is expected to be the cheapest, if any."""
        return self.pricing.exact([m.name for m in self.candidates])

    def free(self) -> Configuration:
        """The cheapest candidate on as many rows as may be wrong, the reference on the rest."""
        return self.pricing.free([m.name for m in self.candidates])

    def _sizes(self) -> list[int]:
        """Numbers of rows after which the configurations are weighed."""
        n_rows = self.problem.population.n_rows
        most = min(LOOKS * self.first, max(1, n_rows // 20))
        step = min(self.first, most)
        return list(range(step, most + 1, step))

    @property
    def first(self) -> int:
        """Rows of the first look, and of each further one: more where more is at stake."""
        share = self.problem.population.n_rows * self.tuning.pilot_rows
        return int(min(max(self.tuning.pilot, share), self.tuning.pilot_most))

    def _price(self, model: Candidate) -> float:
        return self.pricing.price(model.name)

    def _room(self, factor: float) -> float:
        """What candidates may cost in a pilot, in calls of the reference."""
        return factor * self.tuning.pilot_share * self.problem.population.n_rows

    def _asks(self, models: list[Candidate]) -> list[Ask]:
        prompts = self.prompts
        return [Ask(name, prompts) for name in (self.problem.reference.name, *names(models))]

    def _cheap(self) -> list[Candidate]:
        """Candidates that are looked at from the start."""
        room = self._room(1.0)
        chosen: list[Candidate] = []
        ordered = sorted(self.candidates, key=lambda m: m.expected_cost)
        for model in ordered:
            price = self._price(model)
            if price <= self.tuning.cheap and self.first * price <= room:
                chosen.append(model)
                room -= self.first * price
        return chosen or ordered[:1]

    def _tempts(self, model: Candidate, ranked: list[Configuration]) -> bool:
        """Whether a dearer candidate may be worth a look."""
        return ranked[0].cost / self.pricing.left > self._price(model) + self.tuning.probe

    def _judges(self, ranked: list[Configuration]) -> list[Candidate]:
        """Verifiers of the best primary that are worth a look and were not looked at yet."""
        best, left = ranked[0], self.pricing.left
        return [
            judge
            for judge in self.problem.verifiers
            if judge.after == (best.primary,)
            and judge not in self.judges
            and self._price(judge) <= self.tuning.cheap
            and best.calls + self._price(judge) * left < best.cost
            and self.size * self._price(judge) <= self._room(1.0)
        ]

    def _within_reach(self, live: list[Candidate], ranked: list[Configuration]) -> list[Candidate]:
        """Candidates that are part of a configuration not far from the best."""
        # the fewer rows, the less their order says; and no more is at stake than can be saved
        doubt = self.tuning.reach * np.sqrt(LOOKS * self.first / self.size)
        reach = ranked[0].cost + doubt * max(0.0, self.pricing.left - ranked[0].cost)
        close = [c for c in ranked if c.cost <= reach]
        wanted = {c.primary for c in close}
        wanted |= {name for c in close for name in (c.second, *c.helpers) if name is not None}
        return [m for m in live if m.name in wanted]

    def _blind(self, ranked: list[Configuration]) -> bool:
        """Whether no evidence is near being worth its calls, so that a plain audit will follow."""
        reach = ranked[0].cost + 0.5 * self.tuning.reach * self.pricing.left
        return not any(c.guided and c.cost <= reach for c in ranked)

    def _taught(
        self, live: list[Candidate], ranked: list[Configuration]
    ) -> Generator[list[Ask], None, list[Configuration]]:
        """Have learning candidates learn from a part of a longer pilot, judge them by the rest.

        What a candidate was trained on says nothing about it, so it is never asked about that.
        """
        n_rows, tuning = self.problem.population.n_rows, self.tuning
        labels = min(max(tuning.labels, self.size + tuning.labels // 4), n_rows // 10)
        price = labels - self.size
        if not (self.learners and ranked) or price <= 0 or price > 0.2 * ranked[0].cost:
            return ranked
        self.size = max(self.size, labels // 2)
        yield self._asks([])
        seen = self.prompts
        self.size = labels
        fresh = self.prompts[~np.isin(self.prompts, seen)]
        if not fresh.size:
            return ranked
        yield [Ask(model.name, fresh, fit=True) for model in self.learners]
        close = self._within_reach(live, ranked)
        yield self._asks([*close, *self.judges])
        return self._ranked([*close, *self.learners])

    # ---- configurations

    def _ranked(self, live: list[Candidate]) -> list[Configuration]:
        """Configurations of the live candidates, cheapest first."""
        pricing = self.pricing
        known = names(live)
        singles = sorted(pricing.priced([(name, ()) for name in known]), key=lambda c: c.cost)
        found = list(singles)
        for single in singles[:2]:
            found += self._helped(pricing, single, known)
        return sorted(found, key=lambda c: c.cost)

    def _completed(self, ranked: list[Configuration]) -> list[Configuration]:
        """With second candidates, and with smaller scopes of the best."""
        if not ranked:
            return ranked
        pricing = self.pricing
        singles = [c for c in ranked if not c.helpers]
        bases = dict.fromkeys((ranked[0], *singles[:2]))
        most = LADDER_MARGIN * ranked[0].cost
        ladders = self._ladders(pricing, [b for b in bases if b.guided])
        found = [*ranked, *(ladder for ladder in ladders if ladder.cost < most)]
        best = min(found, key=lambda c: c.cost)
        if best.calls > NEARLY_FREE * pricing.left and best.second is None:
            found += pricing.priced([(best.primary, best.helpers, share) for share in SHARES])
        return sorted(found, key=lambda c: c.cost)

    def _helped(
        self, pricing: Pricing, single: Configuration, known: list[str]
    ) -> list[Configuration]:
        """The same primary with up to two helpers, and with its verifier."""
        found: list[Configuration] = []
        judges = [j.name for j in self.judges if j.after == (single.primary,)]
        base = single
        for _ in range(2):
            wanted: list[Wanted] = [
                (single.primary, (*base.helpers, name))
                for name in (*known, *judges)
                if name != single.primary
                and name not in base.helpers
                and base.calls + pricing.price(name) * pricing.left < base.cost
            ]
            more = [self._sobered(base, helped) for helped in pricing.priced(wanted)]
            found += more
            better = min(more, key=lambda c: c.cost, default=base)
            if better.cost >= base.cost:
                break
            base = better
        return found

    def _sobered(self, base: Configuration, helped: Configuration) -> Configuration:
        """A configuration with one more helper, at the part of its gain that can be believed.

        The best of many guesses from a few rows looks better than it is.
        """
        gain = (base.cost - base.calls) - (helped.cost - helped.calls)
        return replace(helped, cost=helped.cost + (1.0 - self.tuning.belief) * max(0.0, gain))

    def _ladders(self, pricing: Pricing, bases: list[Configuration]) -> list[Configuration]:
        """Configurations in which a second candidate answers what the primary likely has wrong."""
        asked = [m.name for m in self.candidates if pricing.known((m.name,)).size >= self.size // 2]
        found = []
        for base in bases:
            dearer = [m for m in asked if pricing.price(m) > pricing.price(base.primary)]
            for second in dearer:
                if second in base.helpers:
                    continue
                ladders = (pricing.with_second(base, second, budget) for budget in BUDGETS)
                found += [ladder for ladder in ladders if ladder is not None]
        return found


def names(models: list[Candidate]) -> list[str]:
    """Their names."""
    return [model.name for model in models]
