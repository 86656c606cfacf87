"""The loop: escalate what is likely wrong, audit draws of the rest, until the rest is proved."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from smartsql.policies.routing import predictor
from smartsql.policies.routing.evidence import Evidence
from smartsql.policies.routing.plan import Evidence as Gathered
from smartsql.policies.routing.plan import Layout, Outline, lay_out, plan, segments
from smartsql.policies.routing.tuning import RoutingTuning
from smartsql.profile import Problem, Profile
from smartsql.stats.betting import Book, Draws, Urn
from smartsql.types import UNKNOWN, Ask, BoolArray, FloatArray, IntArray

SERIES = 4
"""Draws between two settings of the tilts, where there are few."""
SETTINGS = 40
"""Settings of the tilts in a round, where there are many draws."""
OPEN, ESCALATED, DRAWN = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Audit:
    """Draws of a round, and all that the bets on them were made from.

    Attributes:
        bases: first totals of the segments of evidence; shape (a,).
        urn: what was left before the first draw.
        draws: what was drawn.
        before: wrong rows found before the first draw.
        stake: share of the evidence put at risk.
        series: draws between two settings of the tilts.
    """

    bases: IntArray
    urn: Urn
    draws: Draws
    before: int
    stake: float
    series: int

    def settle(self, book: Book) -> float:
        """Enter the bets; wrong rows found when they ended."""
        book.cut(self.bases)
        return book.settle(self.urn, self.draws, self.before, self.stake, self.series)


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did; `audit` is None where nothing was bet."""

    escalated: int
    drawn: int
    found: int
    left: int
    planned_cost: float
    log_evidence: float
    audit: Audit | None


@dataclass(frozen=True, slots=True)
class Settled:
    """How the loop ended.

    Attributes:
        deployed: prompts that carry the primary's answer; shape (n_prompts,).
        proved: by evidence; else so few rows are left that all may be wrong.
        found: wrong rows found when that was clear.
        log_evidence: evidence then, in nats.
    """

    deployed: BoolArray
    proved: bool
    found: int
    log_evidence: float
    rounds: tuple[Round, ...]
    drawn: int
    escalated: int


class Loop:
    """Escalation and audit of one primary over the prompts in scope.

    Attributes:
        scope: prompts whose primary answer is usable and that the reference has not answered
            before the first draw, by their place in the secret order; shape (n,).
        fate: whether each is open, escalated or drawn; shape (n,).
        found: wrong rows found in scope.
    """

    def __init__(
        self,
        tuning: RoutingTuning,
        problem: Problem,
        profile: Profile,
        primary: str,
        scope: IntArray,
        known: IntArray,
        evidence: Evidence,
    ) -> None:
        """`evidence` is about `scope`, then `known`: prompts whose labels only train."""
        self.tuning, self.problem, self.profile, self.primary = tuning, problem, profile, primary
        self.scope, self.known, self.evidence = scope, known, evidence
        self.mass = problem.population.weights[scope].astype(np.float64)
        self.fate = np.zeros(scope.size, dtype=np.int8)
        self.found = 0
        self.rng = np.random.Generator(np.random.PCG64(problem.population.entropy))
        self.tolerated = problem.tolerated
        self.book = Book(self.tolerated, problem.requirement.alpha)
        self.beta = evidence.prior
        self.found_at_proof: int | None = None
        self.rounds: list[Round] = []

    def run(self) -> Generator[list[Ask], None, Settled]:
        """Ask until the rest is proved or small enough."""
        while self.found_at_proof is None and self._left() > self.tolerated:
            layout, outline = self._planned()
            if len(self.rounds) >= self.tuning.rounds:
                yield from self._close(layout)
                break
            escalated, draws = self._chosen(layout, outline, len(self.rounds))
            asked = np.concatenate([escalated, draws])
            yield [Ask(self.problem.reference.name, self.scope[asked])]
            self._settle(layout, outline, escalated, draws)
        deployed = np.zeros(self.problem.population.n_prompts, dtype=np.bool_)
        deployed[self.scope[self.fate == OPEN]] = True
        found = self.found if self.found_at_proof is None else self.found_at_proof
        return Settled(
            deployed,
            self.found_at_proof is not None,
            found,
            self.book.evidence(found),
            tuple(self.rounds),
            int((self.fate == DRAWN).sum()),
            int((self.fate == ESCALATED).sum()),
        )

    # ---- what is known

    def _left(self) -> float:
        """Rows not asked yet."""
        return float(self.mass[self.fate == OPEN].sum())

    def _errors(self, items: IntArray) -> BoolArray:
        """Whether the primary is wrong on items that were asked."""
        return self.profile.disagrees(self.primary, self.scope[items])

    def rates(self) -> FloatArray:
        """Predicted error rate of each item in scope."""
        return predictor.rates(self.evidence.x[: self.scope.size], self.beta)

    # ---- a round

    def _planned(self) -> tuple[Layout, Outline]:
        """Bins and plan from all labels so far; positions in the layout are of open items."""
        self._learn()
        items = np.flatnonzero(self.fate == OPEN)
        price = self._prices()[items]
        layout = lay_out(self.rates()[items], self.mass[items], price, self.tuning.bins)
        # all larger totals have to be ruled out too
        least = np.minimum.accumulate(self.book.logs[::-1])[::-1]
        gathered = Gathered(self.book.bases.astype(np.float64), np.maximum(least, -1e3))
        outline = plan(
            layout,
            self.tolerated,
            self.found,
            gathered if self.rounds else None,
            self.book.threshold,
        )
        return layout, outline

    def _learn(self) -> None:
        """Fit the predictions to all labels."""
        asked = np.flatnonzero(self.fate != OPEN)
        rows = np.concatenate([asked, self.scope.size + np.arange(self.known.size)])
        prompts = np.concatenate([self.scope[asked], self.known])
        if prompts.size == 0:
            return
        # the rest of many labels hardly changes a thing
        rows, prompts = rows[-predictor.MOST_LABELS :], prompts[-predictor.MOST_LABELS :]
        y = self.profile.disagrees(self.primary, prompts).astype(np.float64)
        evidence = self.evidence
        self.beta = predictor.fit(
            evidence.x[rows], y, evidence.prior, evidence.precision, self.beta
        )

    def _prices(self) -> FloatArray:
        """Price of the reference's call for each item in scope, 1 on average."""
        profile, reference = self.profile, self.problem.reference.name
        asked = np.concatenate([self.scope[self.fate != OPEN], self.known])
        costs = profile.costs(self.primary)
        return predictor.prices(costs[self.scope], costs[asked], profile.costs(reference)[asked])

    def _chosen(self, layout: Layout, outline: Outline, number: int) -> tuple[IntArray, IntArray]:
        """Items to escalate, and items drawn for audit in the order of the draws."""
        tuning = self.tuning
        items = np.flatnonzero(self.fate == OPEN)
        at = items[layout.order]
        bins = layout.bins[layout.order]
        if outline.closes:
            spare = self._spared(at)
            share = max(0.3, tuning.at(tuning.escalated, number))
            count = int(np.ceil(share * (at.size - spare)))
            return at[:count], np.zeros(0, dtype=np.int64)
        prefix = int((bins < outline.escalated).sum())
        count = int(np.ceil(tuning.at(tuning.escalated, number) * prefix))
        rest = np.ones(self.scope.size, dtype=np.bool_)
        rest[at[:count]] = False
        urn = items[rest[items]]
        weights = (layout.weights[layout.bins] * self.mass[items])[rest[items]]
        draws = int(np.ceil(tuning.at(tuning.audited, number) * outline.draws))
        draws = min(max(draws, 3), urn.size)
        # the smallest of exponential clocks are successive draws without replacement
        clocks = self.rng.standard_exponential(urn.size) / weights
        first = np.argpartition(clocks, draws - 1)[:draws] if draws < urn.size else slice(None)
        drawn = urn[first]
        return at[:count], drawn[np.argsort(clocks[first], kind="stable")]

    def _settle(
        self, layout: Layout, outline: Outline, escalated: IntArray, draws: IntArray
    ) -> None:
        """Count escalations, then settle the bets in the order of the draws.

        After the proof nothing more is bet; what was asked anyway is repaired.
        """
        items = np.flatnonzero(self.fate == OPEN)
        bin_of = np.zeros(self.scope.size, dtype=np.int64)
        bin_of[items] = layout.bins
        self._asked(escalated, ESCALATED)
        self._noted(self.found)
        audit = None
        if draws.size and self.found_at_proof is None:
            audit = self._audit(layout, outline, bin_of, draws)
            self._noted(audit.settle(self.book))
        self._asked(draws, DRAWN)
        found = self.found if self.found_at_proof is None else self.found_at_proof
        self.rounds.append(
            Round(
                int(escalated.size),
                int(draws.size),
                self.found,
                int(self._left()),
                outline.cost,
                self.book.evidence(found),
                audit,
            )
        )

    def _asked(self, items: IntArray, fate: int) -> None:
        """Take items out of those that are open."""
        self.fate[items] = fate
        self.found += int((self.mass[items] * self._errors(items)).sum())

    def _noted(self, found: float) -> None:
        """Keep the number of wrong rows at which the proof came."""
        if self.found_at_proof is None and self.book.proves(found):
            self.found_at_proof = int(found)

    def _audit(self, layout: Layout, outline: Outline, bin_of: IntArray, draws: IntArray) -> Audit:
        """The bets on the draws of this round. Nothing but the draws themselves depends on them."""
        count = layout.mass.size
        left = np.flatnonzero(self.fate == OPEN)
        mass = np.bincount(bin_of[left], self.mass[left], count).astype(np.float64)
        ahead = np.arange(count) < outline.escalated
        labels = self.known.size + int((self.fate != OPEN).sum())
        tested = self.tolerated + 1 + self.found
        return Audit(
            segments(tested, outline, self.found + int(mass.sum())),
            Urn(layout.p, layout.weights, mass, ahead),
            Draws(bin_of[draws], self.mass[draws], self._errors(draws)),
            self.found,
            round(labels / (labels + self.tuning.stake_labels), 4),
            max(SERIES, -(-draws.size // SETTINGS)),
        )

    # ---- the end

    def _spared(self, at: IntArray) -> int:
        """Items at the end of `at` that may all be wrong."""
        return int((np.cumsum(self.mass[at][::-1]) <= self.tolerated).sum())

    def _close(self, layout: Layout) -> Generator[list[Ask], None, None]:
        """Ask about all rows but as many as may be wrong."""
        at = np.flatnonzero(self.fate == OPEN)[layout.order]
        rest = at[: at.size - self._spared(at)]
        yield [Ask(self.problem.reference.name, self.scope[rest])]
        self._asked(rest, ESCALATED)


def unasked(profile: Profile, problem: Problem, prompts: IntArray) -> BoolArray:
    """Which prompts the reference was not asked."""
    return np.asarray(profile.codes(problem.reference.name)[prompts] == UNKNOWN)
