"""SMART's three published procedures, as baselines.

SMART (arXiv 2403.13835) looks for the cheapest model whose answers equal the reference's on a
share 1 - delta of the rows with confidence gamma. It reads the table in its order, asks the
reference and every model still in question about each row, and looks at Clopper-Pearson intervals
every ten rows:

* profile-all goes on until the cheapest satisfying model is known;
* profile-smart also gives up on all open models when the expected cost of going on is no lower
  than that of the cheapest model already found;
* model-mix profiles like profile-smart, then splits the other rows over several models.

Nothing here is repaired: users compare with what was published. Kept deliberately are the
repeated test without correction, the full level for each of several models, the confidence
intervals that ignore how the sample was stopped, the multiplication of confidences of models that
were run on the same rows, the order by prompt price, a model's unit cost divided by all profiled
rows although it left earlier, the expected cost that is not a number for a model that never
erred (which throws every open model away), and contiguous blocks in table order. None of the
three keeps the promise in general, least of all on a sorted table. Where a mixture of M models
was found by one linear program for each of up to 6^M choices of confidence, `mixture` enumerates
pairs of models: an optimal vertex of such a program uses at most two, so the optimum is the same.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from scipy.special import betaincinv

from smartsql.errors import ParameterError
from smartsql.policies import Steps
from smartsql.policies.smart_arithmetic import (
    LOOK_EVERY,
    cheapest_pair,
    split,
    success,
    thresholds,
)
from smartsql.profile import Problem, Profile
from smartsql.types import Ask, FloatArray, IntArray, Plan, Requirement

Procedure = Literal["profile-all", "profile-smart", "model-mix"]

PRUNE_FROM = 100
"""Rows before the expected cost is considered."""
CONFIDENCES = 5
"""Confidence levels that the mixture tries for each model."""

OPEN, INVALID, SATISFIED = 0, 1, 2


class Smart:
    """One of the three procedures of SMART.

    Args:
        procedure: "profile-all", "profile-smart" or "model-mix".
        prompt_prices: price of prompt tokens by model, which alone decides the order in which
            models are preferred; the expected cost of a call where no prices are given.

    Source: SMART (arXiv 2403.13835), sections on profiling, early termination and mixing, and
    the code published with it.
    """

    def __init__(
        self, procedure: Procedure, prompt_prices: Mapping[str, float] | None = None
    ) -> None:
        if procedure not in get_args(Procedure):
            raise ParameterError(
                f"SMART has no procedure {procedure!r}; it has {', '.join(get_args(Procedure))}."
            )
        self.procedure = procedure
        self.prompt_prices = prompt_prices

    @property
    def name(self) -> str:
        """The strategy's name."""
        return f"smart-{self.procedure}"

    def steps(self, problem: Problem, profile: Profile) -> Steps:
        """Profile rows in their order, then hand out the others in blocks."""
        ladder = self._ladder(problem)
        profiling = Profiling(problem, profile, ladder, prunes=self.procedure != "profile-all")
        yield from profiling.steps()
        rest = problem.population.n_rows - profiling.n
        if self.procedure == "model-mix" and rest > 0:
            shares = mixture(profiling, problem.requirement)
            blocks = split(rest, shares)
        else:
            blocks = np.zeros(len(ladder) + 1, dtype=np.int64)
            blocks[profiling.cheapest_satisfied()] = rest
        return _plan(problem, profiling, blocks)

    def _ladder(self, problem: Problem) -> list[int]:
        """Positions of the candidates below the reference's price, cheapest first.

        A model at or above that price is never profiled and hence never chosen.
        """
        prices = [
            model.expected_cost if self.prompt_prices is None else self.prompt_prices[model.name]
            for model in problem.models
        ]
        cheaper = [i for i in range(1, len(prices)) if prices[i] < prices[0]]
        return sorted(cheaper, key=lambda position: prices[position])


class Profiling:
    """The rows read so far, and what they say about each model of the ladder.

    Attributes:
        ladder: positions of the models in the problem, cheapest first, without the reference.
        n: rows read.
        agreed: rows on which each model agreed; shape (len(ladder),).
        asked: rows for which each model was asked; shape (len(ladder),).
        spent: cost of each model over its rows, the reference last; shape (len(ladder) + 1,).
            A repeated prompt counts again: SMART does not know of repeats (the bill does).
        status: `OPEN`, `INVALID` or `SATISFIED`, never taken back; the reference last.
    """

    def __init__(
        self, problem: Problem, profile: Profile, ladder: Sequence[int], *, prunes: bool
    ) -> None:
        self.ladder = list(ladder)
        self.n = 0
        self.agreed = np.zeros(len(ladder), dtype=np.int64)
        self.asked = np.zeros(len(ladder), dtype=np.int64)
        self.spent = np.zeros(len(ladder) + 1)
        self.status = np.full(len(ladder) + 1, OPEN)
        self.status[-1] = SATISFIED
        self.n_rows = problem.population.n_rows
        self._problem, self._profile, self._prunes = problem, profile, prunes
        self._limits = thresholds(self.n_rows, problem.requirement.delta, problem.requirement.gamma)
        self._last_k = 1

    def steps(self) -> Generator[list[Ask], None, None]:
        """Read rows until the cheapest satisfying model is known or the table ends.

        Each step ends at the next row where a status can change, so that whole blocks are asked
        at once without a call more than row by row.
        """
        names = [model.name for model in self._problem.models]
        while self.n < self.n_rows:
            active = self.active()
            prompts = self._problem.population.order[self.n : self._next_look(active)]
            yield [
                Ask(names[0], prompts),
                *(Ask(names[self.ladder[i]], prompts) for i in active),
            ]
            self._count(prompts, active)
            if self.n % LOOK_EVERY:
                continue  # the table ended between two looks
            self._look(active)
            if self._prunes and self.n >= PRUNE_FROM:
                self._prune()
            if not self.active().size:
                return

    def cheapest_satisfied(self) -> int:
        """Index of the first satisfied model; len(ladder) is the reference."""
        return int(np.flatnonzero(self.status == SATISFIED)[0])

    def active(self) -> IntArray:
        """Indices of the open models that are cheaper than the cheapest satisfied one."""
        return np.flatnonzero(self.status[: self.cheapest_satisfied()] == OPEN)

    def unit_costs(self) -> FloatArray:
        """Cost of each model so far over all rows read, whether it read them all or not."""
        return self.spent / self.n

    def _count(self, prompts: IntArray, active: IntArray) -> None:
        reference = self._problem.reference.name
        self.n += prompts.size
        self.spent[-1] += self._profile.costs(reference)[prompts].sum()
        for i in active:
            name = self._problem.models[self.ladder[i]].name
            self.agreed[i] += np.count_nonzero(~self._profile.disagrees(name, prompts))
            self.asked[i] += prompts.size
            self.spent[i] += self._profile.costs(name)[prompts].sum()

    def _look(self, active: IntArray) -> None:
        """Clopper-Pearson, two-sided at level gamma, on every model just profiled."""
        agreed = self.agreed[active]
        self.status[active[agreed <= self._limits.invalid[self.n]]] = INVALID
        self.status[active[agreed >= self._limits.satisfied[self.n]]] = SATISFIED

    def _next_look(self, active: IntArray) -> int:
        """First row count at which some status can change, whatever the answers are."""
        looks = self._limits
        if (self._prunes and self.n >= PRUNE_FROM) or not active.size:
            return min(self.n + LOOK_EVERY, self.n_rows)
        agreed = self.agreed[active]
        soonest = min(
            np.searchsorted(looks.spared, self.n - agreed).min(),  # if all agree from here on
            np.searchsorted(looks.invalid[::LOOK_EVERY], agreed).min(),  # if none does
        )
        stop = LOOK_EVERY * max(int(soonest), self.n // LOOK_EVERY + 1)
        return min(stop, self.n_rows, PRUNE_FROM if self._prunes else self.n_rows)

    def _prune(self) -> None:
        """Give up all open models when going on is not expected to pay.

        Source: SMART, early termination, in the accumulated form that the published code runs.
        """
        active = self.active()
        rest = self.n_rows - self.n
        if not active.size or rest == 0:
            return
        agreed = self.agreed[active]
        # with a standard error of 0 the published integral is not a number, no comparison with
        # it holds, the minimum stays infinite and every open model goes, a perfect one first
        worth_it = bool(((agreed > 0) & (agreed < self.n)).all()) and self._pays(active, rest)
        if not worth_it:
            self.status[active] = INVALID

    def _pays(self, active: IntArray, rest: int) -> bool:
        """Whether some k = 1, 2, 4, .. below `rest` has an expected cost below stopping now."""
        units = self.unit_costs()
        stopping = rest * units[self.cheapest_satisfied()]
        if self._last_k < rest:  # what paid at the last look mostly pays now: one k to evaluate
            k = np.array([self._last_k])
            if self._expected(k, active, rest, units)[0] < stopping:
                return True
        ks = 2 ** np.arange(max(rest - 1, 0).bit_length())
        if not ks.size:
            return False
        expected = self._expected(ks, active, rest, units)
        best = int(np.argmin(expected))
        self._last_k = int(ks[best])
        return bool(expected[best] < stopping)

    def _expected(self, ks: IntArray, active: IntArray, rest: int, units: FloatArray) -> FloatArray:
        """Expected cost of profiling k rows more and then using what they show; as `ks`."""
        agreed = self.agreed[active]
        limits = self._limits.satisfied[self.n + ks]
        # an unreachable limit counts as "all of them", as in the published search
        limits = np.minimum(limits, self.n + ks)
        needed = np.maximum(limits[None, :] - agreed[:, None], 0)
        succeeds = success(agreed / self.n, self.n, ks, needed)
        fails = np.cumprod(1.0 - succeeds, axis=0)
        first = succeeds * np.vstack([np.ones(ks.size), fails[:-1]])
        apply = units[active] @ first + fails[-1] * units[self.cheapest_satisfied()]
        return np.asarray(ks * (units[-1] + units[active].sum()) + (rest - ks) * apply)


def mixture(profiling: Profiling, requirement: Requirement) -> FloatArray:
    """Shares of the remaining rows, by index in the ladder, the reference last.

    The profiled rows count as right, so the rest may be a little worse than 1 - delta. A model
    enters with the lower end of its interval at one of five confidences, or with accuracy 0 at
    confidence 1, and the product of the confidences must reach gamma.

    Source: SMART, mixing of several models.
    """
    n, n_rows, gamma = profiling.n, profiling.n_rows, requirement.gamma
    target = min((1.0 - requirement.delta - n / n_rows) * n_rows / (n_rows - n), 1.0)
    levels = gamma + np.arange(CONFIDENCES) * (1.0 - gamma) / CONFIDENCES
    agreed, asked = profiling.agreed[:, None], profiling.asked[:, None]
    lower = np.where(
        agreed > 0, betaincinv(np.maximum(agreed, 1), asked - agreed + 1, (1.0 - levels) / 2), 0.0
    )
    n_models = len(profiling.ladder)
    member = np.append(np.repeat(np.arange(n_models), CONFIDENCES + 1), n_models)
    unused = np.zeros((n_models, 1))
    accuracy = np.append(np.hstack([lower, unused]), 1.0)
    confidence = np.append(np.tile(np.append(levels, 1.0), n_models), 1.0)
    allowed = confidence[:, None] * confidence >= gamma
    allowed &= member[:, None] != member
    np.fill_diagonal(allowed, confidence >= gamma)
    costs = profiling.unit_costs()
    better, worse, share = cheapest_pair(accuracy, costs[member], target, allowed)
    shares = np.zeros(n_models + 1)
    shares[member[better]] += share
    shares[member[worse]] += 1.0 - share
    return shares


def _plan(problem: Problem, profiling: Profiling, blocks: IntArray) -> Plan:
    """Contiguous blocks of the unread rows, cheapest model first; read rows keep the reference's.

    Rows with one prompt share one answer, that of the block of the last of them.
    """
    population = problem.population
    positions = np.append(profiling.ladder, 0).astype(np.int64)
    ends = profiling.n + np.cumsum(blocks)
    block = np.searchsorted(ends[:-1], population.last, side="right")
    assigned = np.where(population.first < profiling.n, 0, positions[block])
    names = [problem.models[position].name for position in profiling.ladder]
    labels = {OPEN: "open", INVALID: "invalid", SATISFIED: "satisfied"}
    return Plan(
        assigned,
        bound=problem.requirement.delta if assigned.any() else 0.0,
        audited_rows=profiling.n,
        escalates_failures=False,
        certificate={
            "profiled_rows": profiling.n,
            "agreed": dict(zip(names, profiling.agreed.tolist(), strict=True)),
            "asked": dict(zip(names, profiling.asked.tolist(), strict=True)),
            "status": {m: labels[int(s)] for m, s in zip(names, profiling.status, strict=False)},
            "blocks": dict(zip([*names, problem.reference.name], blocks.tolist(), strict=True)),
        },
        notes=("the bound is what SMART claims, not proven",),
    )
