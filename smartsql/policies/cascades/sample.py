"""The labelled rows from which a cascade learns: the first ones of the order.

Rows are counted, not prompts: a prompt that stands in 40 rows is drawn and counted as often as its
rows come up, and is asked once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np

from smartsql.policies.cascades.tiers import Judged, Tier, by_place, cheap, judge
from smartsql.population import Population
from smartsql.profile import Problem, Profile
from smartsql.types import Ask, BoolArray, FloatArray, IntArray

SHARE = 0.1
"""Share of the rows that are labelled."""
FEWEST, MOST = 50, 500
LARGEST_SHARE = 0.25
"""Of a small table."""
PROBED = 50
"""Rows on which all cheap candidates are tried before one is chosen."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Some rows of the table.

    Attributes:
        prompts: that occur in them, by place; shape (k,).
        counts: rows of the sample that carry each; shape (k,).
    """

    prompts: IntArray
    counts: IntArray

    @property
    def n_rows(self) -> int:
        """Rows of the sample."""
        return int(self.counts.sum())

    @staticmethod
    def first(population: Population, n_rows: int) -> Sample:
        """The first rows of the order."""
        rows = population.order[:n_rows]
        prompts, counts = np.unique(rows, return_counts=True)
        by_first = np.argsort(population.first[prompts], kind="stable")
        return Sample(prompts[by_first], counts[by_first].astype(np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """What a sample says about a tier; arrays of shape (k,).

    Attributes:
        scores: confidences, minus infinity where there is none.
        usable: whether there is an answer; those without go to the reference.
        wrong: usable answers that differ from the reference's.
        counts: rows.
        price: of an answer with its confidence, relative to one of the reference.
    """

    scores: FloatArray
    usable: BoolArray
    wrong: BoolArray
    counts: IntArray
    price: float

    @property
    def n_rows(self) -> int:
        """Rows of the sample."""
        return int(self.counts.sum())

    def cost(self, accepted: BoolArray) -> float:
        """Cost of a row, relative to the reference's, when these answers are kept."""
        escalated = self.counts[~(accepted & self.usable)].sum()
        return self.price + float(escalated) / self.n_rows

    def errors(self, accepted: BoolArray) -> int:
        """Rows that are wrong when these answers are kept."""
        return int(self.counts[accepted & self.wrong].sum())


Rule = Callable[[Labelled, float], BoolArray]
"""Which answers of labelled rows a cascade would keep, given the tolerated share of errors."""


def labelled_rows(problem: Problem) -> int:
    """Rows that teach a cascade."""
    n = problem.population.n_rows
    wanted = min(max(int(SHARE * n), FEWEST), MOST)
    return max(1, min(wanted, int(LARGEST_SHARE * n)))


def labelled(problem: Problem, profile: Profile, judged: Judged, sample: Sample) -> Labelled:
    """What the sample's paid answers say about a tier."""
    prompts = sample.prompts
    usable = judged.usable(profile, prompts)
    return Labelled(
        judged.scores(profile, prompts),
        usable,
        usable & profile.disagrees(judged.name, prompts),
        sample.counts,
        judged.price(profile) / profile.mean_cost(problem.reference.name),
    )


def choose(
    problem: Problem, profile: Profile, ladder: Sequence[Tier], rule: Rule, *, verifies: bool
) -> Generator[list[Ask], None, tuple[Judged | None, Sample]]:
    """The one tier to build a cascade on, fixed before anything else is drawn.

    A single candidate is taken as it is, unseen. Of several, the cheap ones answer the first rows,
    and the one is taken whose cascade under `rule` would have cost least on them: a choice that
    needs no truth beyond the reference's answers to these rows, which are kept.

    Returns:
        The tier, None if no cascade would have cost less than the reference, and the rows that
        were paid for.
    """
    n_rows = min(PROBED, labelled_rows(problem))
    sample = Sample.first(problem.population, n_rows)
    if len(ladder) == 1:
        # its answers show who judges them; a cascade asks it about these rows in any case
        (only,) = yield from judge(profile, ladder, sample.prompts, verifies=verifies)
        return only, Sample(sample.prompts[:0], sample.counts[:0])
    tried = cheap(problem, ladder)
    yield [Ask(problem.reference.name, sample.prompts)]
    judged = yield from judge(profile, tried, sample.prompts, verifies=verifies)
    delta = problem.requirement.delta
    seen = [labelled(problem, profile, each, sample) for each in judged]
    costs = [facts.cost(rule(facts, delta)) for facts in seen]
    best = int(np.argmin(costs))
    return (judged[best] if costs[best] < 1.0 else None), sample


def learn(
    problem: Problem, profile: Profile, judged: Judged
) -> Generator[list[Ask], None, tuple[Labelled, Sample]]:
    """Label the whole sample for one tier."""
    sample = Sample.first(problem.population, labelled_rows(problem))
    yield [Ask(problem.reference.name, sample.prompts), *judged.asks(sample.prompts)]
    return labelled(problem, profile, judged, sample), sample


def unlabelled(problem: Problem, profile: Profile) -> IntArray:
    """Prompts without the reference's answer, by place."""
    every = by_place(problem)
    return every[~profile.known(problem.reference.name, every)]
