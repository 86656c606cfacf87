"""The audit: one or two candidates race on the same rows until one of them is proved.

Looks are taken in the order of the rows and on complete batches. The audit may stop at any look
for any reason: a permission that was issued stays good for every later part of it, and the
tolerated number of rows may always be handed out.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from smartsql.policies.exact.pilot import Choice, Standing
from smartsql.policies.exact.planning import DesignTable, posterior
from smartsql.policies.exact.sample import Sample
from smartsql.policies.exact.tuning import Tuning
from smartsql.stats.calibrate import Worst, calibrate
from smartsql.stats.design import Design
from smartsql.types import Ask, FloatArray


@dataclass
class Test:
    """One candidate under audit.

    Attributes:
        standing: what the pilot said of it.
        alpha: its share of alpha.
        design: its design, over the rows after the pilot.
        worst: where the design is most at risk.
        drawn: rows audited at its last look.
        found: errors found in them.
        issued: end of the rows it may answer, counted from the start of the audit; None while
            nothing is proved.
        active: further looks are open.
    """

    standing: Standing
    alpha: float
    design: Design
    worst: Worst
    drawn: int = 0
    found: int = 0
    issued: int | None = None
    active: bool = True

    __test__ = False  # not a test case, whatever its name


@dataclass(frozen=True, slots=True)
class Settled:
    """How an audit ended.

    Attributes:
        tests: the tests as they stood at the end.
        deployed: the candidate that answers, None for the reference alone.
        start: first row it answers, in the order of all rows.
        end: row before which it stops.
        permitted: its audit issued the permission; else these are tolerated rows.
    """

    tests: tuple[Test, ...]
    deployed: Standing | None
    start: int
    end: int
    permitted: bool


@dataclass
class Race:
    """The audit of the chosen candidates."""

    tuning: Tuning
    sample: Sample
    table: DesignTable
    choice: Choice
    tests: list[Test]

    @staticmethod
    def start(tuning: Tuning, sample: Sample, choice: Choice, alpha: float) -> Race:
        """Draw up the designs. They depend on the pilot alone."""
        table = choice.outlook.table
        n_rows = sample.counts.n_rows - choice.pilot
        tests = []
        for standing, share in choice.tests:
            last = min(int(table.last[standing.design]), int(tuning.max_last * n_rows))
            ramp = float(table.ramps[standing.design])
            design, worst = calibrate(n_rows, table.tolerated, last, ramp, share * alpha)
            tests.append(Test(standing, share * alpha, design, worst))
        return Race(tuning, sample, table, choice, tests)

    @property
    def origin(self) -> int:
        """First row of the audit, in the order of all rows."""
        return self.choice.pilot

    def run(self) -> Generator[list[Ask], None, Settled]:
        """Audit until a permission is worth using or none is to be had."""
        events = sorted(
            (int(look), number, position)
            for number, test in enumerate(self.tests)
            for position, look in enumerate(test.design.looks)
        )
        learning = True
        for index, (drawn, number, position) in enumerate(events):
            test = self.tests[number]
            if not test.active:
                continue
            if self.sample.asked < self.origin + drawn:
                target = self._batch_end([event[0] for event in events[index:]])
                models = [t.standing.model for t in self.tests if t.active]
                yield self.sample.extend(models, self.origin + target, fit=learning)
                # the candidates are fixed from the first audited row on
                learning = False
            self._look(test, drawn, position)
            if self._is_over(drawn):
                break
        return self._settle()

    def _look(self, test: Test, drawn: int, position: int) -> None:
        """Count the errors up to a look and issue what it proves."""
        name = test.standing.model.name
        start, stop = self.origin + test.drawn, self.origin + drawn
        test.found += self.sample.errors(name, start, stop)
        test.drawn = drawn
        if test.found <= test.design.bounds[position]:
            test.issued, test.active = test.design.n_rows, False
        elif drawn == test.design.last:
            test.issued, test.active = test.design.prefix(test.found), False

    # ---- economics

    def _weights(self, test: Test) -> FloatArray:
        """Posterior over the error rates from pilot and audit up to the last look."""
        standing = test.standing
        found, audited = standing.found + test.found, standing.audited + test.drawn
        return posterior(self.table.rates, found, audited)

    def _batch_end(self, looks: list[int]) -> int:
        """Rows after which the next decision is taken: further than the next look where rows
        asked in vain cost little."""
        ahead = np.unique(np.array(looks, dtype=np.int64))
        ahead = ahead[ahead <= ahead[0] + np.maximum(ahead[0], self.table.shortest)]
        stopped = np.zeros(ahead.size)
        for test in self.tests:
            if test.active:
                stopped = np.maximum(stopped, self._chance_stopped(test, ahead))
        stopped = np.maximum.accumulate(stopped)
        # rows in vain if asked up to look j: gaps between looks, each lost if stopped before it
        vain = np.concatenate([[0.0], np.cumsum(stopped[:-1] * np.diff(ahead))])
        reckoned = np.maximum(stopped, self.tuning.stop_floor)
        fits = vain <= self.tuning.look_ahead * self.choice.value * reckoned
        return int(ahead[np.flatnonzero(fits)[-1]])

    def _chance_stopped(self, test: Test, looks: np.ndarray) -> FloatArray:
        """Chance that a test has passed by each look, from what is known; shape of looks."""
        from scipy.special import bdtr

        design = test.design
        position = np.searchsorted(design.looks, looks, side="right") - 1
        bounds = np.where(position >= 0, design.bounds[np.maximum(position, 0)], -1)
        room = (bounds - test.found)[:, None]
        rows = np.maximum(0, design.looks[np.maximum(position, 0)] - test.drawn)[:, None]
        passed = bdtr(np.clip(room, 0, rows), rows, self.table.rates[None, :])
        passed = np.where(room < 0, 0.0, passed)
        chance = passed @ self._weights(test)
        return np.where(looks >= design.last, 1.0, chance)

    def _is_over(self, drawn: int) -> bool:
        """Whether going on is worth less than using what is issued."""
        active = [test for test in self.tests if test.active]
        if not active:
            return True
        issued = [test for test in self.tests if test.issued is not None]
        if not issued:
            return False
        done = issued[0]
        other = active[0]
        if other.standing.answer_cost >= done.standing.answer_cost and (
            done.issued == done.design.n_rows
        ):
            return True
        return self._going_on(other, done, drawn) >= 0.999 * self._finishing(done, drawn)

    def _remaining(self, drawn: int) -> float:
        """Distinct prompts that no one was asked after so many audited rows."""
        counts = self.sample.counts
        return float(counts.n_prompts - int(counts.seen(self.origin + drawn)))

    def _finishing(self, done: Test, drawn: int) -> float:
        """Cost of the rest when the issued permission is used now."""
        counts = self.sample.counts
        assert done.issued is not None
        end = max(self.origin + done.issued, self.origin + drawn)
        freed = float(counts.inside(self.origin + drawn, min(end, counts.n_rows)))
        return freed * done.standing.answer_cost + self._remaining(drawn) - freed

    def _going_on(self, other: Test, done: Test, drawn: int) -> float:
        """Expected cost of the rest when the audit of the other candidate goes on."""
        ahead, standing = self.choice.outlook, other.standing
        audits, freed = ahead.audited[standing.design], ahead.freed[standing.design]
        remaining = self._remaining(drawn)
        spent = ahead.remaining - remaining
        extra = np.minimum(remaining, np.maximum(audits - spent, 0.15 * spent))
        rest = remaining - extra
        price = extra * (1 + standing.cost)
        if done.issued == done.design.n_rows:
            # rows that the other one does not get stay with the one that has passed
            share = freed / np.maximum(1.0, ahead.remaining - audits)
            share = np.clip((share - 0.6) / 0.4, 0.0, 1.0)
            unit = share * standing.answer_cost + (1 - share) * done.standing.answer_cost
            cost = price + rest * unit
        else:
            got = np.minimum(freed, rest)
            cost = price + got * standing.answer_cost + rest - got
        return float(cost @ self._weights(other))

    # ---- the end

    def _settle(self) -> Settled:
        """Use the permission that saves most, or the rows that may be wrong anyway."""
        counts = self.sample.counts
        drawn = max((test.drawn for test in self.tests), default=0)
        start = self.origin + drawn
        options = [tolerated_rows(self.sample, self.table, self.choice.spare)]
        for test in self.tests:
            if test.issued is not None and self.origin + test.issued > start:
                end = self.origin + test.issued
                saved = float(counts.inside(start, end)) * (1 - test.standing.answer_cost)
                options.append((saved, test.standing, start, end, True))
        saved, deployed, begin, end, permitted = max(options, key=lambda option: option[0])
        if saved <= 0.0:
            deployed, begin, end, permitted = None, start, start, False
        return Settled(tuple(self.tests), deployed, begin, end, permitted)


def tolerated_rows(
    sample: Sample, table: DesignTable, spare: Standing | None
) -> tuple[float, Standing | None, int, int, bool]:
    """What handing out the tolerated rows after all asked ones saves, and which rows they are."""
    start = sample.asked
    if spare is None:
        return 0.0, None, start, start, False
    end = min(sample.counts.n_rows, start + table.tolerated)
    saved = float(sample.counts.inside(start, end)) * (1 - spare.answer_cost)
    return saved, spare, start, end, False
