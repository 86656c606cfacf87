"""A bet on every draw of an audit that stays exact while the plan changes.

A population of items holds an unknown fixed number of errors. Item i stands for `mass[i]` rows and
is either wrong in all of them or in none. Items are drawn one after the other without replacement,
item i with probability `q[i]` among those left; each draw reveals whether the item is an error.
Before a draw the bettor has any opinion `p[i]` of the chance that i is an error, and tilts it:

    (1 - p) / (1 - p0) - p / p0 = tilt * mass / q        defines p0[i] for any tilt >= 0.

The bet pays p/p0 if the drawn item is an error and (1-p)/(1-p0) if not. Its expectation over the
draw is C - tilt * sum(mass * error): it depends on how many rows are wrong, never on which. With
sum(mass * p0) wrong rows it is exactly 1. So one draw is a fair bet against every total at once:
against a total D1 the factor is `payoff + slope * (D1 - total)`, where `total` counts the wrong
rows found before the draw and sum(mass * p0) over the items left.

The product of these factors at the true total is a non-negative martingale whatever opinions,
weights, stakes and escalations were chosen on the way, as long as each was chosen before its draw.
By Ville's inequality it ever reaches 1/alpha with probability at most alpha.

Source: Ville (1939); betting martingales for sampling without replacement as in Waudby-Smith and
Ramdas (2020) and, with unequal weights, Waudby-Smith, Stark and Ramdas, "RiLACS" (2021). The tilt
that makes one bet serve all totals is our own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from smartsql.types import BoolArray, FloatArray

LEAST_FACTOR = 0.02
"""No single draw may lose more than all but this share of the evidence."""


def tilted(p: FloatArray, k: FloatArray) -> FloatArray:
    """The root p0 in [p, 1] of (1-p)/(1-p0) - p/p0 = k, for k >= 0.

    Args:
        p: predicted error rates in (0, 1); any shape.
        k: tilt * mass / q; broadcasts with `p`.
    """
    rest = 1.0 - k
    root = np.sqrt(rest * rest + 4.0 * k * p)
    # each form cancels digits where the other is stable
    small = 2.0 * p / np.maximum(rest + root, 1e-300)
    large = (root - rest) / np.maximum(2.0 * k, 1e-300)
    return np.asarray(np.where(k <= 1.0, small, large))


def tilt_for(
    p: FloatArray,
    pull: FloatArray,
    mass: FloatArray,
    total: ArrayLike,
    *,
    start: FloatArray | None = None,
    steps: int = 14,
) -> FloatArray:
    """The tilt at which the tilted rates add up to `total` wrong rows; 0 where they already do.

    By Newton's steps within a bracket. How close they come does not matter for the validity of a
    bet, which takes the sum at the tilt that it uses.

    Args:
        p: predicted error rates of the items (or bins of items); shape (..., n).
        pull: mass / weight of the draw of each; same shape.
        mass: rows in each; same shape.
        total: wrong rows under the hypothesis; shape (...).
        start: a tilt to start from.

    Returns:
        The tilt in units of the sum of the weights; shape (...).
    """
    wanted = np.asarray(total, dtype=np.float64)
    open_ = (p * mass).sum(axis=-1) < wanted
    wanted = np.minimum(wanted, 0.999 * mass.sum(axis=-1))
    low = np.zeros(wanted.shape)
    # at k = 1 / (1 - share) every rate is above 1 - 1 / k = share
    share = np.minimum(wanted / np.maximum(mass.sum(axis=-1), 1e-300), 0.999)
    high = 1.0 / ((1.0 - share) * np.where(mass > 0.0, pull, np.inf).min(axis=-1))
    tilt = 0.3 * high if start is None else np.clip(start, 0.0, high)
    for _ in range(steps):
        k = tilt[..., None] * pull
        rest = 1.0 - k
        root = np.sqrt(rest * rest + 4.0 * k * p)
        p0 = 2.0 * p / (rest + root + 1e-12)
        # the derivative of the root is p0 (1 - p0) / root
        slope = (mass * pull * p0 * (1.0 - p0) / root).sum(axis=-1)
        excess = (mass * p0).sum(axis=-1) - wanted
        low, high = np.where(excess < 0.0, tilt, low), np.where(excess > 0.0, tilt, high)
        moved = tilt - excess / np.maximum(slope, 1e-300)
        inside = (moved > low) & (moved < high)
        tilt = np.where(inside, moved, 0.5 * (low + high))
    return np.asarray(np.where(open_, tilt, 0.0))


@dataclass(frozen=True, slots=True)
class Bets:
    """Bets settled so far, in the order of the draws.

    Attributes:
        factors: what each bet left of the stake at its own total; shape (t,).
        slopes: how much more for each wrong row beyond that total; shape (t,), not negative.
        totals: total number of wrong rows at which the bet is exactly fair; shape (t,).
    """

    factors: FloatArray
    slopes: FloatArray
    totals: FloatArray

    @staticmethod
    def none() -> Bets:
        """Before the first draw."""
        empty = np.zeros(0)
        return Bets(empty, empty, empty)

    @property
    def size(self) -> int:
        """Number of draws."""
        return int(self.factors.size)

    def joined(self, later: Bets) -> Bets:
        """These bets, then those of later draws."""
        return Bets(
            np.concatenate([self.factors, later.factors]),
            np.concatenate([self.slopes, later.slopes]),
            np.concatenate([self.totals, later.totals]),
        )

    def log_evidence(self, total: ArrayLike) -> FloatArray:
        """Evidence in nats that fewer than `total` rows are wrong; shape of `total`.

        Grows with `total` above the bets' own totals; minus infinity where any bet is lost whole.
        """
        wanted = np.asarray(total, dtype=np.float64)
        terms = self.factors + self.slopes * (wanted[..., None] - self.totals)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(np.maximum(terms, 0.0)).sum(axis=-1)
        return np.asarray(np.where((terms > 0.0).all(axis=-1), logs, -np.inf))


@dataclass(frozen=True, slots=True)
class Urn:
    """Items left before a series of draws, by bins within which they look alike.

    Attributes:
        p: predicted error rate of each bin, in (0, 1); shape (bins,).
        weights: weight of the draw for one row of each bin, above 0; shape (bins,).
        mass: rows left in each bin; shape (bins,).
    """

    p: FloatArray
    weights: FloatArray
    mass: FloatArray

    @property
    def weight(self) -> float:
        """Sum of the weights over all rows left."""
        return float((self.weights * self.mass).sum())


def settle(
    urn: Urn,
    bins: np.ndarray,
    masses: FloatArray,
    errors: BoolArray,
    *,
    found: float,
    aim: float,
    stake: float,
    tested: float,
    missing: float = np.inf,
) -> Bets:
    """The bets on a series of draws from an urn, made with one tilt that was set before them.

    An item of mass h in bin k is drawn with probability weights[k] * h over the sum for the items
    left. Nothing but `bins`, `masses` and `errors` may depend on the draws of this series.

    Args:
        urn: what was left before the first draw of the series.
        bins: bin of each drawn item, in draw order; shape (t,).
        masses: rows of each drawn item; shape (t,).
        errors: whether each is wrong; shape (t,).
        found: wrong rows known before the series, and not in the urn.
        aim: total of wrong rows (found ones included) against which the bet is to grow.
        stake: share of the evidence put at risk, in [0, 1].
        tested: smallest total that is ever tested; the stake is lowered such that no factor falls
            below LEAST_FACTOR at it.
        missing: evidence in nats that is missing at `tested`; a draw without an error need not
            win more than that, so the stake is lowered to what most such draws need.
    """
    pull = 1.0 / urn.weights
    tilt = float(tilt_for(urn.p, pull, urn.mass, aim - found))
    p0 = tilted(urn.p, tilt * pull)
    won, lost = (1.0 - urn.p) / np.maximum(1.0 - p0, 1e-300), urn.p / p0
    payoffs = np.where(errors, lost[bins], won[bins])
    # before each draw: weight, wrong rows expected under the tilt, and wrong rows found
    gone = _before(masses * urn.weights[bins])
    weight = np.maximum(urn.weight - gone, 1e-300)
    total = (
        found + _before(masses * errors) + float((urn.mass * p0).sum()) - _before(masses * p0[bins])
    )
    slope = tilt / weight
    # in advance for each draw: the worst it can do at the smallest total that is tested
    least = float(lost.min()) + slope * np.minimum(0.0, tested - total)
    stakes = np.minimum(stake, (1.0 - LEAST_FACTOR) / np.maximum(1.0 - least, 1e-12))
    if np.isfinite(missing):
        share = urn.mass * urn.weights
        typical = float((share * won).sum() / share.sum())
        gain = typical - 1.0 + slope[0] * (tested - total[0])
        if gain > 0.0:
            stakes = np.minimum(stakes, 1.1 * np.expm1(max(0.0, missing)) / gain)
    if tilt <= 0.0:
        stakes = np.zeros_like(stakes)
    return Bets(1.0 - stakes + stakes * payoffs, stakes * slope, total)


def growth(p: FloatArray, p0: FloatArray) -> FloatArray:
    """Expected growth of the evidence in nats when a rate `p` is right and `p0` is the null."""
    right = np.maximum(1.0 - p, 1e-300) / np.maximum(1.0 - p0, 1e-300)
    return np.asarray(p * np.log(p / p0) + (1.0 - p) * np.log(right))


def _before(values: FloatArray) -> FloatArray:
    """Sum of the values before each position."""
    sums = np.cumsum(values, dtype=np.float64)
    return np.concatenate([[0.0], sums[:-1]])
