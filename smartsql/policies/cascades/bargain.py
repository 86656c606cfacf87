"""`bargain`: a threshold cascade of two models with a guarantee of its own."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from smartsql.policies import Steps
from smartsql.policies.cascades.mean_test import log_capital
from smartsql.policies.cascades.sample import Labelled, choose, unlabelled
from smartsql.policies.cascades.thresholds import lowest
from smartsql.policies.cascades.tiers import Judged, reference_plan, tiers
from smartsql.profile import Problem, Profile
from smartsql.types import Ask, BoolArray, IntArray, Plan

PREFIXES = 20
"""Thresholds that are tried, equally spaced by rows."""
STEP = 10
"""Rows audited between two looks."""
PATIENCE = 50
"""Rows after which a prefix without prospects is given up."""


class Proof(NamedTuple):
    """The longest prefix that passed.

    Attributes:
        prompts: how many, safest first, may keep the cheap model's answers.
        audited: rows that were drawn.
        passed: prefixes that passed.
    """

    prompts: int
    audited: int
    passed: int


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """The answers that may be kept, safest first.

    Attributes:
        prompts: in this order; shape (n,).
        ends: for each prefix the number of its prompts, rising.
        sizes: and of its rows.
        draws: rows of the scope in random order, as indices into `prompts`; shape (n_rows,).
    """

    prompts: IntArray
    ends: IntArray
    sizes: IntArray
    draws: IntArray


class Bargain:
    """BARGAIN's procedure for an accuracy target, with agreement as accuracy.

    The cheap model answers every row. Rows are sorted by its confidence and cut into twenty nested
    prefixes. From the shortest on, rows are drawn from the prefix until a bet proves that it holds
    at most the tolerated number of errors, or until that looks hopeless; the longest prefix in an
    unbroken row of proofs keeps the cheap answers, the reference answers the rest and whatever was
    drawn. Errors found are repaired, but not credited.

    Why the promise holds: the prefixes are fixed before the first draw. Let j be the first with
    more errors than tolerated. Deploying it or a longer one needs the bet on j to succeed, which
    happens with probability at most alpha. No correction for twenty tests is needed.

    Which cheap model: with one candidate that one ("a pair fixed beforehand"; `--models` names
    it). With several, a few labelled rows, which are no part of the test, choose it as described
    in `sample.choose`; the reference answers all if none is expected to pay. Rows of equal or
    without confidence are put in a random order of their own, independent of the draws.

    Source: BARGAIN (SIGMOD 2026), accuracy targets, and its published code: prefixes, step,
    patience and stakes are those. Differs: the draws follow the secret order; a prefix no longer
    than the tolerated rows passes without a draw; failed answers leave the scope.
    """

    @property
    def name(self) -> str:
        """The strategy's name."""
        return "bargain"

    def steps(self, problem: Problem, profile: Profile) -> Steps:
        """Answer all rows cheaply, prove prefixes, hand out."""
        ladder, notes = tiers(problem)
        if not ladder:
            return reference_plan(problem, notes)
        judged, sample = yield from choose(problem, profile, ladder, _rule, verifies=False)
        if judged is None:
            return reference_plan(problem, notes, pilot_rows=sample.n_rows)
        rest = unlabelled(problem, profile)
        yield judged.asks(rest)
        scope = lay_out(problem, profile, judged, rest)
        certified = yield from certify(problem, profile, judged, scope)
        kept = scope.prompts[: certified.prompts]
        assigned = np.zeros(problem.population.n_prompts, dtype=np.int64)
        assigned[kept] = judged.tier.position
        kept_rows = int(problem.population.weights[kept].sum())
        return Plan(
            assigned,
            bound=min(problem.tolerated, kept_rows) / problem.population.n_rows,
            pilot_rows=sample.n_rows,
            audited_rows=certified.audited,
            certificate={
                "procedure": self.name,
                "model": judged.name,
                "judge": judged.judge,
                "prefixes": certified.passed,
                "rows": kept_rows,
            },
            notes=tuple(notes),
        )


def _rule(facts: Labelled, delta: float) -> BoolArray:
    """What a threshold would keep: the outlook by which the model is chosen."""
    return lowest(facts, delta).keeps(facts.scores)


def lay_out(problem: Problem, profile: Profile, judged: Judged, prompts: IntArray) -> Scope:
    """Usable answers by confidence, in prefixes.

    Args:
        prompts: that the reference was not asked, by place.
    """
    population = problem.population
    # ties: a permutation that has nothing to do with the order in which rows are drawn
    lots = np.random.Generator(np.random.PCG64(population.entropy)).permutation(prompts.size)
    usable = judged.usable(profile, prompts)
    prompts, lots = prompts[usable], lots[usable]
    prompts = prompts[np.lexsort((lots, -judged.scores(profile, prompts)))]
    rows = np.cumsum(population.weights[prompts])
    n_rows = int(rows[-1]) if rows.size else 0
    wanted = np.ceil(np.arange(1, PREFIXES + 1) * n_rows / PREFIXES)
    ends = np.unique(np.searchsorted(rows, wanted) + 1) if n_rows else np.zeros(0, np.int64)
    rank = np.full(population.n_prompts, -1, dtype=np.int64)
    rank[prompts] = np.arange(prompts.size)
    draws = rank[population.order]
    return Scope(prompts, ends, rows[ends - 1], draws[draws >= 0])


def certify(
    problem: Problem, profile: Profile, judged: Judged, scope: Scope
) -> Generator[list[Ask], None, Proof]:
    """Prove one prefix after the other until one fails."""
    best = Proof(0, 0, 0)
    drawn: BoolArray = np.zeros(scope.draws.size, dtype=np.bool_)
    for end, size in zip(scope.ends.tolist(), scope.sizes.tolist(), strict=True):
        target = 1.0 - problem.tolerated / size
        if target > 0.0:
            rows = np.flatnonzero(scope.draws < end)
            passed, n = yield from _prove(problem, profile, judged, scope, rows, target)
            drawn[rows[:n]] = True
            best = best._replace(audited=int(drawn.sum()))
            if not passed:
                break
        best = best._replace(prompts=end, passed=best.passed + 1)
    return best


def _prove(
    problem: Problem,
    profile: Profile,
    judged: Judged,
    scope: Scope,
    rows: IntArray,
    target: float,
) -> Generator[list[Ask], None, tuple[bool, int]]:
    """Whether a share `target` of these rows is right, and how many were drawn to tell."""
    alpha = problem.requirement.alpha
    right: BoolArray = np.zeros(0, dtype=np.bool_)
    while right.size < PATIENCE or _promising(right, target):
        some = scope.prompts[scope.draws[rows[right.size : right.size + STEP]]]
        yield [Ask(problem.reference.name, np.unique(some))]
        right = np.concatenate([right, ~profile.disagrees(judged.name, some)])
        if right.size == rows.size:
            return bool(right.mean() >= target - 1e-12), right.size
        above = bool(right.mean() >= target)
        capital = (
            log_capital(right, target, alpha, rows.size)
            if above
            else log_capital(~right, 1.0 - target, alpha, rows.size)
        )
        if capital.max() >= -np.log(alpha):
            return above, right.size
    return False, right.size


def _promising(right: BoolArray, target: float) -> bool:
    """Whether the rows drawn do not rule the target out at first sight."""
    return bool(right.mean() - right.std() >= target)
