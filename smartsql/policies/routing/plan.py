"""How many rows to escalate and how many to audit, if the predictions were right.

Rows left are laid out from the one whose repair is worth most to the one where it is worth least,
in bins. A plan escalates a prefix of the bins and audits so many draws of the rest that the
expected evidence suffices. It is made anew after every round, so it need not be exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smartsql.stats.betting import growth, tilt_for, tilted
from smartsql.types import FloatArray, IntArray

WEIGHT_FLOOR, WEIGHT_POWER = 0.03, 0.7


@dataclass(frozen=True, slots=True)
class Layout:
    """Rows left, in bins from the first to escalate to the last.

    Attributes:
        order: positions of the items, sorted by bin; shape (n,).
        bins: bin of each item, in the order of the items; shape (n,).
        p: mean predicted error rate of each bin; shape (k,).
        mass: rows of each bin; shape (k,).
        items: distinct prompts of each bin; shape (k,).
        price: mean price of asking the reference about a prompt; shape (k,).
        weights: weight of a draw for one row; shape (k,).
    """

    order: IntArray
    bins: IntArray
    p: FloatArray
    mass: FloatArray
    items: FloatArray
    price: FloatArray
    weights: FloatArray


def lay_out(p: FloatArray, mass: FloatArray, price: FloatArray, bins: int) -> Layout:
    """Sort items by what a repair saves for its price, and cut them into bins."""
    n = p.size
    order = np.argsort(-(p * mass / price), kind="stable")
    count = max(1, min(bins, n))
    place = (np.arange(n) * count) // max(1, n)
    where = np.empty(n, dtype=np.int64)
    where[order] = place
    rows = np.bincount(where, mass, count).astype(np.float64)
    rate = np.bincount(where, mass * p, count) / rows
    items = np.bincount(where, minlength=count).astype(np.float64)
    cost = np.bincount(where, price, count) / items
    # few digits do, and keep certificates short
    rate = _short(rate)
    weights = _short(np.maximum(rate * (1 - rate / 2) / cost, WEIGHT_FLOOR) ** WEIGHT_POWER)
    return Layout(order, where, rate, rows, items, cost, weights)


@dataclass(frozen=True, slots=True)
class Outline:
    """A plan.

    Attributes:
        cost: expected price of all further calls of the reference.
        escalated: bins to escalate.
        draws: audits after that.
        finds: wrong rows that these draws are expected to find.
        total: wrong rows that will be tested against at the end.
        closes: it is cheaper to ask about all rows but the tolerated ones.
    """

    cost: float
    escalated: int
    draws: float
    finds: float
    total: float
    closes: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """Evidence so far as a function of the total of wrong rows tested.

    Attributes:
        totals: increasing; shape (g,).
        logs: evidence in nats there; shape (g,).
    """

    totals: FloatArray
    logs: FloatArray

    def at(self, total: FloatArray) -> FloatArray:
        """Evidence against the given totals."""
        return np.interp(total, self.totals, self.logs)


def plan(
    layout: Layout, tolerated: int, found: float, evidence: Evidence | None, needed: float
) -> Outline:
    """The cheapest prefix and number of audits.

    Args:
        tolerated: wrong rows that may remain.
        found: wrong rows found so far.
        evidence: what was gathered so far, None for nothing.
        needed: evidence in nats at which the rest is proved.
    """
    prospect = _Prospect(layout, tolerated, found, evidence)
    draws, total, costs = prospect.proving(needed)
    best = int(np.argmin(costs))
    closing = _closing_cost(layout, tolerated)
    if costs[best] >= closing:
        return Outline(closing, layout.p.size, 0.0, 0.0, found + tolerated + 1.0, True)
    finds = float(total[best] - prospect.base - prospect.found[best])
    return Outline(
        float(costs[best]), best, float(draws[best]), finds, float(total[best]), closes=False
    )


def expected_costs(layouts: Sequence[Layout], tolerated: int, needed: float) -> FloatArray:
    """What the cheapest plan costs for each of several layouts of as many bins; shape (n,)."""
    arrays = ("p", "mass", "items", "price", "weights")
    bins = (np.stack([getattr(layout, name) for layout in layouts]) for name in arrays)
    stacked = Layout(layouts[0].order, layouts[0].bins, *bins)
    costs = _Prospect(stacked, tolerated, 0.0, None).proving(needed)[2].min(axis=-1)
    closing = [_closing_cost(layout, tolerated) for layout in layouts]
    return np.asarray(np.minimum(costs, closing))


def segments(tested: int, outline: Outline, most: int) -> IntArray:
    """First totals of the segments in which evidence is kept: fine where the plan is to end.

    They lie on multiples of powers of two, so that those of later plans mostly refine them.

    Args:
        tested: smallest total that would break the promise now.
        most: largest total that is possible.
    """
    spread = np.sqrt(max(0.0, outline.finds) + 1.0)
    step = 2 ** int(np.log2(max(1.0, spread / 4.0)))
    end = max(outline.total, float(tested))
    near = np.arange(int((end - 4 * spread) // step), int((end + 4 * spread) // step) + 2) * step
    parts = [tested + np.arange(3), near]
    gap = step
    for _ in range(4):
        # beyond, ever coarser
        gap *= 4
        parts.append((int(near[-1]) // gap + 1 + np.arange(3)) * gap)
    below = 2 ** int(np.log2(max(1.0, (near[0] - tested) / 8)))
    parts.append(np.arange(tested // below + 1, int(near[0]) // below + 1) * below)
    bases = np.unique(np.concatenate(parts)).astype(np.int64)
    return np.asarray(bases[(bases >= tested) & (bases <= max(tested, most))])


class _Prospect:
    """What audits of the rest bring, for every prefix of bins that may be escalated.

    Draws without replacement are clocks: by time t an item of weight w is drawn with probability
    1 - exp(-w t). Growth is taken at half of the time.
    """

    def __init__(
        self, layout: Layout, tolerated: int, found: float, evidence: Evidence | None
    ) -> None:
        """`layout` may hold several, along a leading axis of its bins."""
        k = layout.p.shape[-1]
        self.layout, self.evidence = layout, evidence
        self.rest = np.arange(k) >= np.arange(k)[:, None]
        self.wrong = layout.mass * layout.p
        self.price = layout.items * layout.price
        self.escalated_cost = _before(self.price)
        self.base = tolerated + 1.0
        self.found = found + _before(self.wrong)
        self.rate = layout.weights * (layout.mass / layout.items)
        self.tilts = np.zeros(layout.p.shape)

    def proving(self, needed: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Draws that bring the evidence, total tested then, and cost; shape (..., k) each.

        The cost is infinite where the evidence is out of reach.
        """
        low = np.full(self.layout.p.shape, -14.0)
        high = np.full(self.layout.p.shape, 5.0)
        for _ in range(10):
            middle = (low + high) / 2
            enough = self.after(middle)[3] >= needed
            high = np.where(enough, middle, high)
            low = np.where(enough, low, middle)
        draws, price, total, gained = self.after(high)
        return draws, total, np.where(gained >= needed, self.escalated_cost + price, np.inf)

    def after(self, log_time: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Draws, their price, the total that is tested then, the evidence; shape (..., k) each."""
        layout, fastest = self.layout, self.rate.max(axis=-1, keepdims=True)
        clock = (np.exp(log_time) / fastest)[..., None] * self.rate[..., None, :]
        drawn = self.rest * -np.expm1(-clock)
        undrawn = self.rest * np.exp(-0.5 * clock)
        total = self.base + self.found + _times(drawn, self.wrong)
        # halfway, the wrong rows that the hypothesis still has among those left
        null = total - self.found - _times(self.rest - undrawn, self.wrong)
        left = layout.mass[..., None, :] * undrawn
        p = np.broadcast_to(layout.p[..., None, :], left.shape)
        pull = np.broadcast_to(1.0 / layout.weights[..., None, :], left.shape)
        # the tilt of the last look is near: a few steps from there do
        self.tilts = tilt_for(p, pull, left, null, start=self.tilts, steps=4)
        p0 = tilted(p, self.tilts[..., None] * pull)
        chance = left * layout.weights[..., None, :]
        chance = chance / np.maximum(chance.sum(axis=-1, keepdims=True), 1e-300)
        draws = _times(drawn, layout.items)
        gained = draws * (chance * growth(p, p0)).sum(axis=-1)
        if self.evidence is not None:
            gained = gained + self.evidence.at(total)
        return draws, _times(drawn, self.price), total, gained


def _times(parts: FloatArray, values: FloatArray) -> FloatArray:
    """Sum of the values, each taken in part; shapes (..., k, k) and (..., k)."""
    return np.asarray(np.matmul(parts, values[..., None])[..., 0])


def _short(values: FloatArray) -> FloatArray:
    """Values in (0, 1] or near it, in steps of 1e-5."""
    return np.maximum(np.round(values, 5), 1e-5)


def _before(values: FloatArray) -> FloatArray:
    """Sum of the values before each position, along the last axis."""
    return np.asarray(np.cumsum(values, axis=-1) - values)


def _closing_cost(layout: Layout, tolerated: int) -> float:
    """Price of asking about all rows but as many as may be wrong, the dear ones' last."""
    cost = float((layout.items * layout.price).sum())
    mass, spared = layout.mass, 0.0
    free = float(tolerated)
    for k in range(mass.size - 1, -1, -1):
        share = min(1.0, free / mass[k])
        spared += share * layout.items[k] * layout.price[k]
        free -= share * mass[k]
        if free <= 0.0:
            break
    return cost - spared
