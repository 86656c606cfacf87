"""The pilot: as few rows as settle which audit is worth its money.

Pilot rows carry the reference's answers and serve economics only. What they show chooses the
candidates and the designs; the audit then starts on fresh rows, so nothing decided here can break
the promise.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np

from smartsql.policies.exact.planning import (
    DesignTable,
    Outlook,
    is_hopeless,
    outlook,
    posterior,
    posterior_mean,
)
from smartsql.policies.exact.sample import Sample
from smartsql.policies.exact.tuning import Tuning
from smartsql.solver import Mixture, cheapest_mixture
from smartsql.types import Ask, Candidate, FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """What is thought of a candidate after some rows.

    Attributes:
        model: the candidate.
        found: errors counted for the posterior.
        audited: rows they were counted on.
        cost: one call, in calls of the reference.
        answer_cost: one deployed answer; where it fails the reference is asked as well.
        weights: posterior over the error rates of the table; shape (p,).
        costs: cost of all remaining prompts by design and error rate; shape (z, p).
        design: position of the best affordable design in the table, 0 for none.
        value: its expected cost.
        audits: prompts it is expected to audit.
    """

    model: Candidate
    found: int
    audited: int
    cost: float
    answer_cost: float
    weights: FloatArray
    costs: FloatArray
    design: int
    value: float
    audits: float

    @property
    def curve(self) -> FloatArray:
        """Cost of all remaining prompts under the chosen design, by error rate; shape (p,)."""
        return np.asarray(self.costs[self.design])


@dataclass(frozen=True, slots=True)
class Choice:
    """What the pilot settled.

    Attributes:
        pilot: pilot rows; the audit starts here.
        tests: candidates to audit and their shares of alpha; empty for none.
        spare: the candidate for the rows that may be wrong anyway, if any is worth it.
        outlook: expected numbers of calls after the pilot.
        value: expected cost of everything, in calls of the reference.
        mixture: cheapest mixture without an audit, the bound that plans are measured by.
        notes: candidates left out, and why.
    """

    pilot: int
    tests: tuple[tuple[Standing, float], ...]
    spare: Standing | None
    outlook: Outlook
    value: float
    mixture: Mixture | None
    notes: tuple[str, ...]


@dataclass
class Pilot:
    """One pilot: the candidates still in the race and the plan at its last size.

    Attributes:
        live: candidates that are asked.
        notes: sentences on those left out.
    """

    tuning: Tuning
    sample: Sample
    table: DesignTable
    live: list[Candidate]
    notes: list[str] = field(default_factory=list)
    tried: list[Candidate] = field(default_factory=list)

    def sizes(self) -> list[int]:
        """Numbers of rows after which the plan is weighed, increasing."""
        most = int(self.tuning.pilot_limit * self.table.n_rows)
        sizes = [size for size in self.tuning.pilot_sizes if size <= most]
        return sizes or [max(1, min(self.tuning.pilot_sizes[0], most))]

    def run(self) -> Generator[list[Ask], None, Choice]:
        """Ask pilot rows until the plan is clear."""
        sizes = self.sizes()
        self._admit(sizes[0])
        if not self.live:
            return self._settled(0, [], None)
        at = 0
        expected_audits = float(self.table.shortest)
        while True:
            target = self._asked_ahead(sizes, at, expected_audits)
            yield self.sample.extend(self._askable(), sizes[target], fit=True)
            if any(model.learns for model in self.live):
                # what trained a learning candidate cannot audit it: all rows asked are pilot
                at = target
            while at <= target:
                pilot = sizes[at]
                following = sizes[at + 1] if at + 1 < len(sizes) else None
                later = sizes[at + 1 :]
                choice, ended = self._weigh(pilot, following, later)
                if ended:
                    return choice
                expected_audits = max((s.audits for s, _ in choice.tests), default=0.0)
                at += 1

    def _admit(self, first: int) -> None:
        """Leave out candidates whose trial alone may cost more than can be lost."""
        counts, tuning = self.sample.counts, self.tuning
        calls = int(counts.seen(first))
        spent, admitted = 0.0, []
        for model in sorted(self.live, key=lambda m: self.sample.relative_cost(m.name, 0)):
            cost = self.sample.relative_cost(model.name, 0)
            free = float(counts.inside(first, min(counts.n_rows, first + self.table.tolerated)))
            room = tuning.overspend * counts.n_prompts + free * (1 - cost)
            if spent + calls * cost <= room and self._can_pay(cost, first):
                admitted.append(model)
                spent += calls * cost
            else:
                self.notes.append(
                    f"{model.name} was left out: with {counts.n_prompts} distinct prompts, "
                    f"trying it would cost more than it may save."
                )
        self.live = admitted
        self.tried = list(admitted)

    def _can_pay(self, cost: float, pilot: int) -> bool:
        """Whether a candidate without any error would save more than its trial costs."""
        ahead = outlook(self.table, self.sample.counts, pilot)
        calls = int(self.sample.counts.seen(pilot))
        return bool(ahead.costs(cost, cost)[:, 0].min() + calls * (1 + cost) < self.total)

    @property
    def total(self) -> int:
        """Cost of asking the reference everything, in its calls."""
        return self.sample.counts.n_prompts

    def _askable(self) -> list[Candidate]:
        """Live candidates; a learning one only when it has labels to learn from."""
        enough = self.sample.asked >= self.tuning.learning_from
        return [model for model in self.live if enough or not model.learns]

    def _asked_ahead(self, sizes: list[int], at: int, expected_audits: float) -> int:
        """Position of the size to ask up to: further than `at` where that costs little.

        The reference's answers are needed in any case up to about the first look of the audit;
        what may be lost is the calls of candidates that will be dropped.
        """
        prices = sum(self.sample.relative_cost(m.name, sizes[at]) for m in self._askable())
        needed = sizes[at] if at == 0 else sizes[at - 1] + 0.5 * expected_audits
        needed = max(needed, self.table.shortest)
        cheapest = min(self.sample.relative_cost(m.name, sizes[at]) for m in self.live)
        allowance = self.tuning.look_ahead * max(cheapest * self.total, sizes[at])
        target = at
        for later in range(at + 1, len(sizes)):
            if sizes[later] > needed or (sizes[later] - sizes[at]) * prices > allowance:
                break
            target = later
        return target

    # ---- weighing

    def _weigh(self, pilot: int, following: int | None, later: list[int]) -> tuple[Choice, bool]:
        """The plan after `pilot` rows, and whether the pilot ends with it."""
        self._drop_unfit(pilot)
        if not self.live:
            return self._settled(pilot, [], None), True
        ahead = outlook(self.table, self.sample.counts, pilot)
        seen = [model for model in self.live if model.name in self.sample.since]
        standings = [self.standing(model, pilot, ahead) for model in seen]
        if not standings:
            return self._settled(pilot, [], None), following is None
        best = min(standings, key=lambda s: s.value)
        regrets = {s.model.name: _regret(best, s) for s in standings}
        kept = [
            s
            for s in standings
            if s is best
            or s.model.learns
            or regrets[s.model.name] > self.tuning.keep * s.cost * max(best.audits, pilot)
        ]
        names = {s.model.name for s in kept}
        self.live = [m for m in self.live if m.name in names or m not in seen]
        mixture = self._mixture(kept)
        others = [s for s in kept if s is not best]
        second = max(others, key=lambda s: regrets[s.model.name], default=None)
        regret = regrets[second.model.name] if second is not None else 0.0
        pair = self._pairs(best, second, regret, pilot, ahead)
        raced = [best, second] if pair and second is not None else [best]
        choice = self._settled(pilot, raced, mixture)
        if following is None:
            return choice, True
        # most of what the reference answers here it would have to answer in any case
        spared = max(0.0, 1 - best.value / max(1, ahead.remaining))
        price = (following - pilot) * (spared + sum(s.cost for s in kept))
        clear = pilot >= self.tuning.pilot_share * best.audits
        if second is not None:
            gain = min(self.tuning.regret * regret, self._penalty(best, second))
            # nothing can be won beyond the mixture that needs no audit
            gain = min(gain, max(0.0, best.value - mixture.unit_cost * ahead.remaining))
            clear = clear and price >= self.tuning.look_further * gain
        clear = clear and not self._learning_pays(best, standings, pilot, later, ahead)
        return choice, clear

    def standing(self, model: Candidate, pilot: int, ahead: Outlook) -> Standing:
        """What the rows before `pilot` say of a candidate."""
        found, audited = self._counted(model, pilot)
        cost = self.sample.relative_cost(model.name, pilot)
        answer = cost + self.sample.failures(model.name, pilot)
        weights = posterior(ahead.table.rates, found, audited)
        costs = ahead.costs(cost, answer)
        values = costs @ weights
        values[ahead.table.last > self.affordable([cost], answer, pilot, ahead.table)] = np.inf
        at = int(np.argmin(values))
        audits = float(ahead.audited[at] @ weights)
        value = float(values[at])
        return Standing(model, found, audited, cost, answer, weights, costs, at, value, audits)

    def _counted(self, model: Candidate, pilot: int) -> tuple[int, int]:
        """Errors of a candidate, and the rows before `pilot` on which they were counted."""
        since = self.sample.since[model.name]
        stop = min(pilot, self.sample.until[model.name])
        if model.learns:
            # it was worse when it had seen less: only its later answers count
            since = (since + stop) // 2
        since = min(since, stop)
        return self.sample.errors(model.name, since, stop), stop - since

    def affordable(self, costs: list[float], answer: float, pilot: int, table: DesignTable) -> int:
        """Rows that may be audited without ever exceeding the reference's bill by overspend."""
        counts, tuning = self.sample.counts, self.tuning
        names = [model.name for model in self.tried]
        spent = sum(
            float(counts.seen(self.sample.until.get(name, 0)))
            * self.sample.relative_cost(name, pilot)
            for name in names
        )
        sizes = np.unique(np.append(table.last, 0))
        most = int(tuning.max_last * (counts.n_rows - pilot))
        starts = np.minimum(counts.n_rows, pilot + np.minimum(sizes, most))
        free = counts.inside(starts, np.minimum(counts.n_rows, starts + table.tolerated))
        calls = counts.seen(starts) - int(counts.seen(pilot))
        room = tuning.overspend * counts.n_prompts + free * max(0.0, 1 - answer)
        fits = spent + calls * sum(costs) <= room
        return int(sizes[fits].max(initial=0))

    def _drop_unfit(self, pilot: int) -> None:
        """Drop candidates that hardly ever agree or cost as much as the reference."""
        for model in list(self.live):
            if model.name not in self.sample.since:
                continue
            found, audited = self._counted(model, pilot)
            if self.sample.relative_cost(model.name, pilot) >= 1.0:
                self.live.remove(model)
                self.tried.remove(model)
                self.notes.append(
                    f"{model.name} was not used: its calls cost as much as the reference's."
                )
            elif audited > 0 and is_hopeless(found, audited, self.tuning.hopeless):
                self.live.remove(model)
                self.notes.append(
                    f"{model.name} was dropped: on {found} of {audited} pilot rows it differed "
                    f"or failed."
                )

    def _mixture(self, standings: list[Standing]) -> Mixture:
        """The cheapest mixture at the expected error rates."""
        return cheapest_mixture(
            [s.answer_cost for s in standings],
            [posterior_mean(s.found, s.audited) for s in standings],
            reference_cost=1.0,
            budget=self.table.tolerated / self.table.n_rows,
        )

    def _penalty(self, best: Standing, second: Standing) -> float:
        """What racing the second candidate too costs."""
        return best.audits * (self.tuning.pair_penalty * (1 + best.cost) + second.cost)

    def _pairs(
        self,
        best: Standing,
        second: Standing | None,
        regret: float,
        pilot: int,
        ahead: Outlook,
    ) -> bool:
        """Whether two candidates are raced."""
        if second is None or best.design == 0 or second.design == 0:
            return False
        last = max(int(ahead.table.last[best.design]), int(ahead.table.last[second.design]))
        room = self.affordable([best.cost, second.cost], best.answer_cost, pilot, ahead.table)
        return last <= room and self._penalty(best, second) < self.tuning.regret * regret

    def _learning_pays(
        self,
        best: Standing,
        standings: list[Standing],
        pilot: int,
        later: list[int],
        ahead: Outlook,
    ) -> bool:
        """Whether more labels would make a learning candidate worth more than they cost.

        Its error rate is taken to fall with a power of its labels. One that was hardly tried yet
        is tried first where the labels for it are a small part of the whole.
        """
        known = {s.model.name: s for s in standings}
        for model in (m for m in self.live if m.learns):
            now = known.get(model.name)
            short = 2 * self.tuning.learning_from - pilot
            if (now is None or now.audited < self.tuning.learning_from // 2) and (
                short * (1 + best.cost) < self.tuning.learning_trial * best.value
            ):
                return True
            if now is None:
                labels, rate, rows = float(self.tuning.learning_from), self.tuning.learning_error, 5
                cost = answer = self.sample.relative_cost(model.name, pilot)
            else:
                labels, rate = float(pilot), posterior_mean(now.found, now.audited)
                rows, cost, answer = max(5, now.audited), now.cost, now.answer_cost
            costs = ahead.costs(cost, answer)
            for size in later:
                guess = rate * (labels / size) ** self.tuning.learning_rate
                weights = posterior(ahead.table.rates, guess * rows, rows)
                share = 1 - (size - pilot) / max(1, self.table.n_rows - pilot)
                price = (size - pilot) * (1 + cost)
                if float((costs @ weights).min()) * share + price < best.value:
                    return True
        return False

    def _settled(self, pilot: int, standings: list[Standing], mixture: Mixture | None) -> Choice:
        """The choice with these candidates as tests, unless auditing none is cheapest."""
        ahead = outlook(self.table, self.sample.counts, pilot)
        shares = (1.0,) if len(standings) == 1 else self.tuning.pair_shares
        tests = tuple(zip(standings, shares, strict=False)) if standings else ()
        if tests and standings[0].design == 0:
            tests = ()
        spare = self._spare(pilot, ahead)
        calls = float(self.sample.counts.seen(pilot))
        value = standings[0].value if standings else float(ahead.remaining)
        tried = sum(self.sample.relative_cost(m.name, pilot) for m in self.tried)
        return Choice(
            pilot,
            tests,
            spare,
            ahead,
            value + calls * (1 + tried),
            mixture,
            tuple(self.notes),
        )

    def _spare(self, pilot: int, ahead: Outlook) -> Standing | None:
        """The cheapest candidate for rows that may be wrong anyway."""
        seen = [m for m in self.tried if m.name in self.sample.since]
        usable = [self.standing(model, pilot, ahead) for model in seen]
        return min(
            (s for s in usable if s.answer_cost < 1.0), key=lambda s: s.answer_cost, default=None
        )


def _regret(best: Standing, other: Standing) -> float:
    """Expected loss of going without the other where it is in truth the cheaper one."""
    loss = np.maximum(0.0, best.curve[:, None] - other.curve[None, :])
    return float(best.weights @ loss @ other.weights)
