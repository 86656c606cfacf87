"""What an audit is expected to cost: designs weighed by what is known of the error rate.

Nothing here touches the promise. A table of designs, roughly calibrated, gives for a grid of true
error rates how many rows each design audits and frees on average; a posterior over that grid and
the unit costs turn it into money. Costs are in calls of the reference, and a prompt that stands
in many rows is paid for once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from smartsql.population import Population
from smartsql.stats.calibrate import search
from smartsql.stats.design import Design, draw_up
from smartsql.stats.risk import chances, endings
from smartsql.types import FloatArray, IntArray

RAMPS = (0.0, 0.5, 1.0)
LAST_RATIO = 1.5
"""Ratio of the numbers of rows audited at most of neighbouring designs."""
TABLE_TRIALS = 3
"""Steps of the calibration of a design in the table."""
TABLE_GAP = 0.4
"""Distance of the error counts at which the prefixes of the table's designs are computed."""
KNOT_STRIDE = 3
"""Every so many designs of one ramp the level is searched for, between them interpolated."""
WEIGHT_BINS = 48
"""Row counts of prompts are grouped into at most about so many sizes."""


@dataclass(frozen=True, slots=True, eq=False)
class DesignTable:
    """Designs for one number of rows, and how they end for a grid of error rates.

    The first design audits nothing and frees the tolerated rows. The endings of all designs lie
    side by side; those of design i start at `starts[i]`.

    Attributes:
        rates: grid of error rates; shape (p,).
        last: rows that each design audits at most; shape (z,).
        ramps: ramp of each design; shape (z,).
        starts: first ending of each design; shape (z,).
        drawn: rows audited at each ending; shape (k,).
        end: end of the freed rows at each ending, `n_rows` for all; shape (k,).
        chance: probability of each ending at each rate; shape (p, k).
    """

    n_rows: int
    tolerated: int
    rates: FloatArray
    last: IntArray
    ramps: FloatArray
    starts: IntArray
    drawn: IntArray
    end: IntArray
    chance: FloatArray

    @property
    def shortest(self) -> int:
        """Fewest rows that a design audits at most."""
        return int(self.last[1:].min(initial=self.n_rows))


def error_rates(share: float) -> FloatArray:
    """Grid of error rates around the tolerated share: fine up to 2.3 times it, coarse above."""
    fine = share * np.linspace(0.0, 2.3, 24)
    grid = np.concatenate([fine, fine[-1] + np.linspace(0.02, 0.38, 6)])
    return np.asarray(np.minimum(grid, 0.995))


def last_looks(n_rows: int, tolerated: int, alpha: float) -> IntArray:
    """Numbers of rows audited at most, geometric between hardly enough and hardly worth it."""
    share = tolerated / n_rows
    low = max(1.0, min(0.6 * n_rows, 0.8 * np.log(1 / alpha) / share))
    high = max(low, min(0.85 * n_rows, 150 / share**1.6 + 100))
    count = int(np.log(high / low) / np.log(LAST_RATIO)) + 2
    lasts = np.geomspace(low, high, count) if count > 1 else np.array([low])
    return np.unique(np.clip(lasts, 1, 0.9 * n_rows).astype(np.int64))


@lru_cache(maxsize=64)
def design_table(n_rows: int, tolerated: int, alpha: float) -> DesignTable:
    """The designs to choose from; depends neither on prices nor on answers."""
    rates = error_rates(tolerated / n_rows)
    errors = np.round(rates * n_rows).astype(np.int64)
    lasts, ramps = [0], [0.0]
    places = [np.array([[0], [min(n_rows, tolerated)]])]
    chance = [np.ones((rates.size, 1))]
    for design in _rough_designs(n_rows, tolerated, alpha):
        ends = endings(design)
        probability = chances(ends, n_rows, errors)
        rest = np.maximum(0.0, 1.0 - probability.sum(axis=1, keepdims=True))
        place, merged = _merged(
            np.append(ends.drawn, design.last),
            np.append(ends.end, design.last + tolerated),
            np.hstack([probability, rest]),
        )
        lasts.append(design.last)
        ramps.append(design.ramp)
        places.append(place)
        chance.append(merged)
    drawn, end = np.hstack(places)
    return DesignTable(
        n_rows,
        tolerated,
        rates,
        np.array(lasts, dtype=np.int64),
        np.array(ramps),
        np.cumsum([0, *(part.shape[1] for part in chance[:-1])]),
        drawn,
        end,
        np.hstack(chance),
    )


def _rough_designs(n_rows: int, tolerated: int, alpha: float) -> list[Design]:
    """Designs whose levels are about right: searched for every third, else in between."""
    lasts = last_looks(n_rows, tolerated, alpha)
    lasts = lasts[lasts + tolerated < n_rows]
    designs = []
    for ramp in RAMPS if lasts.size else ():
        knots = np.unique(np.append(lasts[::KNOT_STRIDE], lasts[-1]))
        known = {
            int(last): search(
                n_rows, tolerated, int(last), ramp, alpha, trials=TABLE_TRIALS, gap=TABLE_GAP
            )
            for last in knots
        }
        levels = np.log([design.level for design in known.values()])
        between = np.exp(np.interp(np.log(lasts), np.log(knots), levels))
        designs += [
            known.get(int(last))
            or draw_up(n_rows, tolerated, int(last), ramp, alpha, float(level), TABLE_GAP)
            for last, level in zip(lasts, between, strict=True)
        ]
    return designs


def _merged(drawn: IntArray, end: IntArray, chance: FloatArray) -> tuple[IntArray, FloatArray]:
    """Endings with the same rows audited and freed added up: ((drawn, end), chance)."""
    places, index = np.unique(np.stack([drawn, end]), axis=1, return_inverse=True)
    order = np.argsort(index.ravel(), kind="stable")
    starts = np.searchsorted(index.ravel()[order], np.arange(places.shape[1]))
    return places, np.add.reduceat(chance[:, order], starts, axis=1)


class PromptCounts:
    """How many distinct prompts stretches of the random order hold.

    Args:
        population: the rows in their order.
    """

    def __init__(self, population: Population) -> None:
        self.n_rows = population.n_rows
        self.n_prompts = population.n_prompts
        self._plain = population.n_rows == population.n_prompts
        self._first = None if self._plain else np.sort(population.first)
        if not self._plain:
            self._sizes, self._counts = _binned(population.weights)

    def seen(self, rows: ArrayLike) -> IntArray:
        """Distinct prompts among the first rows, exactly; shape of `rows`."""
        rows = np.asarray(rows, dtype=np.int64)
        if self._first is None:
            return np.asarray(np.minimum(rows, self.n_rows))
        return np.asarray(np.searchsorted(self._first, rows), dtype=np.int64)

    def inside(self, start: ArrayLike, end: ArrayLike) -> FloatArray:
        """Prompts whose rows all lie from `start` to `end`: expected over random orders.

        Exact for prompts that stand in one row each, and where `end` is the end of all rows.
        """
        start, end = np.broadcast_arrays(np.asarray(start), np.asarray(end))
        if self._first is None:
            return np.asarray(end - start, dtype=np.float64)
        unseen = self.n_prompts - self.seen(start)
        left = np.maximum(1, self.n_rows - start)[..., None]
        # prompts in many rows are less likely to be still unseen, and to lie inside
        among = self._counts * (left / self.n_rows) ** (self._sizes - self._sizes.min())
        inside = (np.maximum(0, end - start)[..., None] / left) ** self._sizes
        return np.asarray(unseen * (among * inside).sum(axis=-1) / among.sum(axis=-1))


def _binned(weights: IntArray) -> tuple[FloatArray, FloatArray]:
    """Row counts of prompts and how many prompts have each, in at most about WEIGHT_BINS bins."""
    sizes, counts = np.unique(weights, return_counts=True)
    if sizes.size <= WEIGHT_BINS:
        return sizes.astype(np.float64), counts.astype(np.float64)
    edges = np.geomspace(1, sizes[-1] + 1, WEIGHT_BINS + 1)
    where = np.clip(np.searchsorted(edges, sizes, side="right") - 1, 0, WEIGHT_BINS - 1)
    total = np.bincount(where, counts, WEIGHT_BINS)
    mean = np.bincount(where, counts * sizes, WEIGHT_BINS) / np.maximum(total, 1)
    return mean[total > 0], total[total > 0].astype(np.float64)


def posterior(rates: FloatArray, found: float, audited: float) -> FloatArray:
    """Probability of each rate on the grid after so many errors; sums to 1.

    The prior Beta(.5, 3) expects a candidate that errs on a seventh of the rows.
    """
    from scipy.special import betainc

    middles = (rates[1:] + rates[:-1]) / 2
    below = betainc(0.5 + found, 3.0 + audited - found, np.clip(middles, 0.0, 1.0))
    return np.diff(np.concatenate([[0.0], below, [1.0]]))


def posterior_mean(found: float, audited: float) -> float:
    """Expected error rate after so many errors, under the prior of `posterior`."""
    return (0.5 + found) / (3.5 + audited)


def is_hopeless(found: int, audited: int, below: float) -> bool:
    """Whether agreement on most rows has posterior probability under `below` (uniform prior)."""
    from scipy.special import betainc

    return float(betainc(found + 1.0, audited - found + 1.0, 0.5)) < below


@dataclass(frozen=True, slots=True, eq=False)
class Outlook:
    """Mean numbers of calls by design and error rate after a pilot of `pilot` rows.

    Attributes:
        audited: distinct prompts audited on average; shape (z, p).
        freed: distinct prompts freed on average; shape (z, p).
        remaining: distinct prompts not seen in the pilot.
    """

    table: DesignTable
    pilot: int
    audited: FloatArray
    freed: FloatArray
    remaining: int

    def costs(self, audit_cost: float, answer_cost: float) -> FloatArray:
        """Cost of all remaining prompts, in calls of the reference; shape (z, p).

        Args:
            audit_cost: cost of one call of the candidate that is audited.
            answer_cost: cost of one deployed answer, its failures repaired.
        """
        reference = self.remaining - self.audited - self.freed
        return self.audited * (1 + audit_cost) + self.freed * answer_cost + reference


def outlook(table: DesignTable, counts: PromptCounts, pilot: int) -> Outlook:
    """Mean numbers of calls of all designs when they start after `pilot` rows."""
    if counts.n_prompts == counts.n_rows == table.n_rows:
        return _plain_outlook(table, pilot)
    start, end = _places(table, pilot)
    seen = int(counts.seen(pilot))
    audited = (counts.seen(start) - seen).astype(np.float64)
    return _averaged(table, pilot, audited, counts.inside(start, end), counts.n_prompts - seen)


@lru_cache(maxsize=256)
def _plain_outlook(table: DesignTable, pilot: int) -> Outlook:
    """The outlook where every row has a prompt of its own; the same for all orders."""
    start, end = _places(table, pilot)
    audited, freed = (start - pilot).astype(np.float64), (end - start).astype(np.float64)
    return _averaged(table, pilot, audited, freed, table.n_rows - pilot)


def _places(table: DesignTable, pilot: int) -> tuple[IntArray, IntArray]:
    """Where each ending starts and ends to free rows, in the order of all rows."""
    # the table is for a few rows more than are left after the pilot
    start = np.minimum(table.n_rows, pilot + table.drawn)
    end = np.where(table.end == table.n_rows, table.n_rows, pilot + table.end)
    return start, np.minimum(table.n_rows, np.maximum(start, end))


def _averaged(
    table: DesignTable, pilot: int, audited: FloatArray, freed: FloatArray, remaining: int
) -> Outlook:
    """Averages over the endings of each design."""
    return Outlook(
        table,
        pilot,
        np.add.reduceat(table.chance * audited, table.starts, axis=1).T,
        np.add.reduceat(table.chance * freed, table.starts, axis=1).T,
        remaining,
    )
