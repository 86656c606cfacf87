"""A bet on every draw of an audit that stays exact while the plan changes.

A population of items holds an unknown fixed number of errors. Item i stands for `mass[i]` rows and
is either wrong in all of them or in none. Items are drawn one after the other without replacement,
item i with probability `q[i]` among those left; each draw reveals whether the item is an error.
Before a draw the bettor has any opinion `p[i]` of the chance that i is an error, and tilts it:

    (1 - p) / (1 - p0) - p / p0 = tilt * mass / q        defines p0[i] for any tilt >= 0.

The bet pays p/p0 if the drawn item is an error and (1-p)/(1-p0) if not. Its expectation over the
draw is C - tilt * sum(mass * error): it depends on how many rows are wrong, never on which. With
sum(mass * p0) wrong rows it is exactly 1; with more it is less than 1, by `tilt` for each row. So
`payoff + slope * (D - total)` is a fair bet against the total D, where `total` counts the wrong
rows found before the draw and sum(mass * p0) over the items left.

The product of such factors at the true total is a non-negative martingale whatever opinions,
weights, stakes and escalations were chosen on the way, as long as each was chosen before its draw.
By Ville's inequality it ever reaches 1/alpha with probability at most alpha.

**An account for each total.** The bets against a total D may differ from those against another:
nothing but the product at the true total has to be a martingale. With b wrong rows found, d
tolerated, the promise is broken only if D >= d+1+b, and by the next errors D = d+1+b is out of the
question. So the account of D needs to win before more than k = D-d-1-b further errors are found,
and is worthless after. The bet that makes most of that is the replication of a digital option: if
each of r = d+1+k errors is drawn by some time with probability 1-s, the account can afford to win
if at most k are drawn by then, where P(Bin(r, 1-s) <= k) = I_s(d+1, k+1) is what it holds over
what it is to win. An error then changes what it holds by the ratio

    I_s(d+1, k) / I_s(d+1, k+1)        to what no error leaves,

which the opinion of ratio * r errors left, with the shape of the predictions, brings about. A test
passes only when all totals from d+1+b on have won. So totals beyond the one at which the audit is
likely to end (the first whose option is expected to be in the money) bet like one just after it.

Totals come in segments from one base to the next. A segment has one account, fair at its base;
factors grow with the total, so it is a supermartingale at every total in it. Segments may be cut
anew between draws: a total then goes on with what the segment that held it had.

Source: Ville (1939); betting martingales for sampling without replacement as in Waudby-Smith and
Ramdas (2020) and, with unequal weights, Waudby-Smith, Stark and Ramdas, "RiLACS" (2021); reaching
a goal by a deadline: Kulldorff (1993), Browne (1999). The tilt that makes a bet depend on the total
alone, and the accounts by totals, are our own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from smartsql.types import BoolArray, FloatArray, IntArray

AMBITION = 0.6
"""Chance of its option at which an account has won: more looks than its own need to be passed."""
LEAST_RATE, MOST_RATE = 1e-7, 0.98


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
class Urn:
    """Items left before a series of draws, by bins within which they look alike.

    Attributes:
        p: predicted error rate of each bin, in (0, 1); shape (bins,).
        weights: weight of the draw for one row of each bin, above 0; shape (bins,).
        mass: rows left in each bin; shape (bins,).
        ahead: bins that are planned to be asked later in any case; shape (bins,).
    """

    p: FloatArray
    weights: FloatArray
    mass: FloatArray
    ahead: BoolArray

    @property
    def weight(self) -> float:
        """Sum of the weights over all rows left."""
        return float((self.weights * self.mass).sum())

    def without(self, draws: Draws) -> Urn:
        """What is left after the draws."""
        gone = np.bincount(draws.bins, draws.masses, self.mass.size)
        return Urn(self.p, self.weights, np.maximum(self.mass - gone, 0.0), self.ahead)


@dataclass(frozen=True, slots=True)
class Draws:
    """Items in the order in which they were drawn.

    Attributes:
        bins: bin of each; shape (t,).
        masses: rows of each; shape (t,).
        errors: whether each is wrong; shape (t,).
    """

    bins: IntArray
    masses: FloatArray
    errors: BoolArray

    def part(self, start: int, stop: int) -> Draws:
        """Some of them."""
        return Draws(self.bins[start:stop], self.masses[start:stop], self.errors[start:stop])

    @property
    def wrong(self) -> float:
        """Wrong rows among them."""
        return float((self.masses * self.errors).sum())


class Book:
    """Evidence against every total of wrong rows that would break the promise.

    Attributes:
        tolerated: wrong rows that may remain.
        threshold: evidence in nats at which a total is ruled out for good.
        bases: first total of each segment, ascending; the last segment has no end; shape (a,).
        logs: evidence of each segment in nats, `threshold` once ruled out; shape (a,).
    """

    def __init__(self, tolerated: int, alpha: float) -> None:
        self.tolerated = tolerated
        self.threshold = float(-np.log(alpha))
        self.bases = np.array([tolerated + 1], dtype=np.int64)
        self.logs = np.zeros(1)

    def cut(self, bases: IntArray) -> None:
        """New segments; totals below the first are given up, so they must be out of question.

        Args:
            bases: ascending, none below the first base now; shape (a,).
        """
        if bases.size == 0 or bases[0] < self.bases[0] or (np.diff(bases) <= 0).any():
            raise ValueError(f"segments must ascend from {self.bases[0]} or later, not {bases}")
        # a new segment may hold totals of several old ones: the least of their evidence is safe
        first = np.searchsorted(self.bases, bases, side="right") - 1
        last = np.append(np.searchsorted(self.bases, bases[1:]), self.bases.size)
        ranges = np.column_stack([first, last]).ravel()
        self.logs = np.minimum.reduceat(np.append(self.logs, np.inf), ranges)[::2]
        self.bases = bases

    def evidence(self, found: float) -> float:
        """Evidence in nats that no more than the tolerated rows are left, with `found` found."""
        tested = self.tolerated + 1 + found
        if tested < self.bases[0]:
            return -np.inf
        first = int(np.searchsorted(self.bases, tested, side="right")) - 1
        return float(self.logs[first:].min())

    def proves(self, found: float) -> bool:
        """Whether all totals are ruled out that would break the promise."""
        return self.evidence(found) >= self.threshold

    def settle(self, urn: Urn, draws: Draws, found: float, stake: float, series: int) -> float:
        """Bet on draws, in series with one tilt each, until the promise is proved.

        An item of mass h in bin k is drawn with probability weights[k] * h over the sum for the
        items left. Nothing but `draws` may depend on the draws.

        Args:
            urn: what was left before the first draw.
            found: wrong rows known before the first draw, and not in the urn.
            stake: share of each account put at risk, in [0, 1].
            series: draws between two settings of the tilts.

        Returns:
            Wrong rows found when the bets ended.
        """
        for start in range(0, draws.bins.size, series):
            if self.proves(found):
                break
            some = draws.part(start, start + series)
            self._bet(urn, some, found, stake)
            urn = urn.without(some)
            found += some.wrong
        return found

    def _bet(self, urn: Urn, draws: Draws, found: float, stake: float) -> None:
        """One series of draws: all accounts that may still be needed bet on it."""
        needed = np.append(self.bases[1:] > self.tolerated + 1 + found, True)
        lost = np.isneginf(self.logs)
        at = np.flatnonzero(needed & ~lost & (self.logs < self.threshold))
        if at.size == 0:
            return
        bases = self.bases[at].astype(np.float64)
        p = self._opinions(urn, at, found)
        factors = _factors(urn, draws, found, bases, p, stake)
        with np.errstate(divide="ignore"):
            logs = self.logs[at][:, None] + np.cumsum(np.log(factors), axis=1)
        # ruled out at any draw is ruled out for good; nothing more is risked
        won = (logs >= self.threshold).any(axis=1)
        self.logs[at] = np.where(won, self.threshold, logs[:, -1])

    def _opinions(self, urn: Urn, at: IntArray, found: float) -> FloatArray:
        """Error rates of the bins that bring about each account's option; shape (a, bins)."""
        from scipy.special import betainc, betaincinv

        base = self.tolerated + 1.0
        ends = np.append(self.bases[1:] - 1, self.bases[-1])[at].astype(np.float64)
        own = np.maximum(ends - base - found, 0.0)
        coming = float((urn.mass * urn.p)[urn.ahead].sum())
        # how many the rows ahead hold is not sure: an account must not die before its time
        k = np.maximum(own - coming, np.minimum(own, np.sqrt(coming)))
        chance = np.minimum(np.exp(self.logs[at] - self.threshold) * AMBITION, 0.999)
        level = max(float((urn.mass * urn.p)[~urn.ahead].sum()), 1e-6)
        finds = level * (1.0 - betaincinv(base, k + 1.0, chance))
        fits = np.flatnonzero((finds <= k + 0.5) & (self.bases[at] - found > coming))
        likely = float(k[fits[0]] if fits.size else k[-1])
        k = np.minimum(k, likely + np.sqrt(likely) + 1.0)
        spared = betaincinv(base, k + 1.0, chance)
        some = np.maximum(k, 1e-9)
        ratio = np.where(k > 0.0, betainc(base, some, spared) / chance, 0.0)
        scale = ratio * (base + k) / level
        p = np.clip(urn.p * scale[:, None], LEAST_RATE, MOST_RATE)
        return np.asarray(np.where(urn.ahead, urn.p, p))


def _factors(
    urn: Urn, draws: Draws, found: float, bases: FloatArray, p: FloatArray, stake: float
) -> FloatArray:
    """What each draw multiplies each account by; shape (a, t), not negative.

    Args:
        bases: totals at which the accounts are fair; shape (a,).
        p: opinion of each account; shape (a, bins).
    """
    pull = np.broadcast_to(1.0 / urn.weights, p.shape)
    mass = np.broadcast_to(urn.mass, p.shape)
    tilt = tilt_for(p, pull, mass, bases - found)[:, None]
    p0 = tilted(p, tilt * pull)
    won, lost = (1.0 - p) / np.maximum(1.0 - p0, 1e-300), p / p0
    payoffs = np.where(draws.errors, lost[:, draws.bins], won[:, draws.bins])
    # before each draw: weight, wrong rows expected under the tilt, and wrong rows found
    gone = _before(draws.masses * urn.weights[draws.bins])
    slope = tilt / np.maximum(urn.weight - gone, 1e-300)
    total = (
        (found + _before(draws.masses * draws.errors))
        + (urn.mass * p0).sum(axis=1, keepdims=True)
        - _before(draws.masses * p0[:, draws.bins])
    )
    shift = slope * (bases[:, None] - total)
    # in advance for each draw: no outcome may leave less than nothing
    least = np.minimum(lost.min(axis=1), won.min(axis=1))[:, None] + np.minimum(0.0, shift)
    stakes = np.minimum(stake, 1.0 / np.maximum(1.0 - least, 1e-12))
    stakes = np.where(tilt > 0.0, stakes, 0.0)
    return np.asarray(np.maximum(1.0 - stakes + stakes * (payoffs + shift), 0.0))


def growth(p: FloatArray, p0: FloatArray) -> FloatArray:
    """Expected growth of the evidence in nats when a rate `p` is right and `p0` is the null."""
    right = np.maximum(1.0 - p, 1e-300) / np.maximum(1.0 - p0, 1e-300)
    return np.asarray(p * np.log(p / p0) + (1.0 - p) * np.log(right))


def _before(values: FloatArray) -> FloatArray:
    """Sum of the values before each position of the last axis."""
    sums = np.cumsum(values, axis=-1, dtype=np.float64)
    earlier = np.roll(sums, 1, axis=-1)
    earlier[..., :1] = 0.0
    return np.asarray(earlier)
