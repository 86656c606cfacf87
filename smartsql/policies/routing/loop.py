"""The loop: escalate what is likely wrong, audit draws of the rest, until the rest is proved."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from smartsql.policies.routing import predictor
from smartsql.policies.routing.evidence import Evidence
from smartsql.policies.routing.plan import Evidence as Gathered
from smartsql.policies.routing.plan import Layout, Outline, lay_out, plan
from smartsql.policies.routing.tuning import RoutingTuning
from smartsql.profile import Problem, Profile
from smartsql.stats.betting import Bets, Urn, settle
from smartsql.types import UNKNOWN, Ask, BoolArray, FloatArray, IntArray

SERIES = 4
"""Draws between two settings of the tilt."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did."""

    escalated: int
    drawn: int
    found: int
    left: int
    planned_cost: float
    log_evidence: float


@dataclass(frozen=True, slots=True)
class Settled:
    """How the loop ended.

    Attributes:
        deployed: prompts that carry the primary's answer; shape (n_prompts,).
        proved: by evidence; else so few rows are left that all may be wrong.
    """

    deployed: BoolArray
    proved: bool
    bets: Bets
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
        open: which of them are not asked yet; shape (n,).
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
        self.open = np.ones(scope.size, dtype=np.bool_)
        self.found = 0
        self.bets = Bets.none()
        self.rng = np.random.Generator(np.random.PCG64(problem.population.entropy))
        self.threshold = float(-np.log(problem.requirement.alpha))
        self.tolerated = problem.tolerated
        self.beta = evidence.prior
        self.found_at_proof: int | None = None
        self.rounds: list[Round] = []
        self.drawn = self.escalated = 0

    def run(self) -> Generator[list[Ask], None, Settled]:
        """Ask until the rest is proved or small enough."""
        number, proved = 0, self._is_proved()
        while not proved and self._left() > self.tolerated:
            layout, outline = self._planned()
            last = number >= self.tuning.rounds
            if last:
                yield from self._close(layout)
                break
            escalated, draws = self._chosen(layout, outline, number)
            asked = np.concatenate([escalated, draws])
            yield [Ask(self.problem.reference.name, self.scope[asked])]
            proved = self._settle(layout, outline, escalated, draws)
            number += 1
        deployed = np.zeros(self.problem.population.n_prompts, dtype=np.bool_)
        deployed[self.scope[self.open]] = True
        found = self.found if self.found_at_proof is None else self.found_at_proof
        return Settled(
            deployed,
            proved,
            self.bets,
            found,
            float(self.bets.log_evidence(self.tolerated + 1 + found)),
            tuple(self.rounds),
            self.drawn,
            self.escalated,
        )

    # ---- what is known

    def _left(self) -> float:
        """Rows not asked yet."""
        return float(self.mass[self.open].sum())

    def _log_evidence(self) -> float:
        """Evidence against the smallest total that would break the promise."""
        return float(self.bets.log_evidence(self.tolerated + 1 + self.found))

    def _is_proved(self) -> bool:
        return self._log_evidence() >= self.threshold

    def _errors(self, items: IntArray) -> BoolArray:
        """Whether the primary is wrong on items that were asked."""
        return self.profile.disagrees(self.primary, self.scope[items])

    # ---- a round

    def _planned(self) -> tuple[Layout, Outline]:
        """Bins and plan from all labels so far; positions in the layout are of open items."""
        self._learn()
        items = np.flatnonzero(self.open)
        p = predictor.rates(self.evidence.x[items], self.beta)
        price = self._prices()[items]
        layout = lay_out(p, self.mass[items], price, self.tuning.bins)
        outline = plan(layout, self.tolerated, self.found, self._gathered(), self.threshold)
        return layout, outline

    def _learn(self) -> None:
        """Fit the predictions to all labels."""
        asked = np.flatnonzero(~self.open)
        rows = np.concatenate([asked, self.scope.size + np.arange(self.known.size)])
        prompts = np.concatenate([self.scope[asked], self.known])
        if prompts.size == 0:
            return
        y = self.profile.disagrees(self.primary, prompts).astype(np.float64)
        evidence = self.evidence
        self.beta = predictor.fit(
            evidence.x[rows], y, evidence.prior, evidence.precision, self.beta
        )

    def _prices(self) -> FloatArray:
        """Price of the reference's call for each item in scope, 1 on average."""
        profile, reference = self.profile, self.problem.reference.name
        asked = np.concatenate([self.scope[~self.open], self.known])
        costs = profile.costs(self.primary)
        return predictor.prices(costs[self.scope], costs[asked], profile.costs(reference)[asked])

    def _gathered(self) -> Gathered | None:
        """The evidence at the totals that a plan may come to."""
        if self.bets.size == 0:
            return None
        least = self.tolerated + 1.0 + self.found
        totals = least + np.linspace(0.0, 1.0, 24) ** 2 * max(1.0, self._left())
        logs = self.bets.log_evidence(totals)
        return Gathered(totals, np.maximum(logs, -1e6))

    def _chosen(self, layout: Layout, outline: Outline, number: int) -> tuple[IntArray, IntArray]:
        """Items to escalate, and items drawn for audit in the order of the draws."""
        tuning = self.tuning
        items = np.flatnonzero(self.open)
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
        self,
        layout: Layout,
        outline: Outline,
        escalated: IntArray,
        draws: IntArray,
    ) -> bool:
        """Count escalations, then settle the bets in the order of the draws."""
        items = np.flatnonzero(self.open)
        bin_of = np.zeros(self.scope.size, dtype=np.int64)
        bin_of[items] = layout.bins
        self.open[escalated] = False
        self.found += int((self.mass[escalated] * self._errors(escalated)).sum())
        mass = layout.mass - np.bincount(bin_of[escalated], self.mass[escalated], layout.mass.size)
        proved = self._noted(self._is_proved())
        labels = self.known.size + self.drawn + self.escalated
        stake = labels / (labels + self.tuning.stake_labels)
        for start in range(0, draws.size, SERIES):
            some = draws[start : start + SERIES]
            wrong = self._errors(some)
            if not proved:
                urn = Urn(layout.p, layout.weights, np.maximum(mass, 0.0))
                self._bet(urn, bin_of[some], self.mass[some], wrong, outline.total, stake)
            mass = mass - np.bincount(bin_of[some], self.mass[some], mass.size)
            self.open[some] = False
            self.found += int((self.mass[some] * wrong).sum())
            # after the proof nothing more is bet; what was asked anyway is repaired
            proved = proved or self._noted(self._is_proved())
        self.drawn += draws.size
        self.escalated += escalated.size
        self.rounds.append(
            Round(
                int(escalated.size),
                int(draws.size),
                self.found,
                int(self._left()),
                outline.cost,
                self._log_evidence(),
            )
        )
        return proved

    def _noted(self, proved: bool) -> bool:
        """Keep the number of wrong rows at which the proof came."""
        if proved:
            self.found_at_proof = self.found
        return proved

    def _bet(
        self,
        urn: Urn,
        bins: IntArray,
        masses: FloatArray,
        wrong: BoolArray,
        aim: float,
        stake: float,
    ) -> None:
        """Settle the bets on a series of draws."""
        tested = self.tolerated + 1.0 + self.found
        bets = settle(
            urn,
            bins,
            masses,
            wrong,
            found=float(self.found),
            aim=max(aim, tested),
            stake=stake,
            tested=tested,
            missing=self.threshold - self._log_evidence(),
        )
        self.bets = self.bets.joined(bets)

    def _spared(self, at: IntArray) -> int:
        """Items at the end of `at` that may all be wrong."""
        return int((np.cumsum(self.mass[at][::-1]) <= self.tolerated).sum())

    def _close(self, layout: Layout) -> Generator[list[Ask], None, None]:
        """Ask about all rows but as many as may be wrong."""
        at = np.flatnonzero(self.open)[layout.order]
        rest = at[: at.size - self._spared(at)]
        yield [Ask(self.problem.reference.name, self.scope[rest])]
        self.open[rest] = False
        self.found += int((self.mass[rest] * self._errors(rest)).sum())
        self.escalated += rest.size


def unasked(profile: Profile, problem: Problem, prompts: IntArray) -> BoolArray:
    """Which prompts the reference was not asked."""
    return np.asarray(profile.codes(problem.reference.name)[prompts] == UNKNOWN)
