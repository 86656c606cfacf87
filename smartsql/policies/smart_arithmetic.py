"""The arithmetic of SMART: whole-number looks, chances of success, mixtures of two, whole splits.

Pure functions of numbers; `smartsql.policies.smart` decides with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import betainc, ndtr, ndtri

from smartsql.types import BoolArray, FloatArray, IntArray

LOOK_EVERY = 10
"""Rows between two looks at the intervals."""
REACH = 8.0
"""Half width of the quadrature, in standard deviations of the narrower density."""
NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(64)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The looks in whole numbers.

    Attributes:
        satisfied: least agreements of n at which the interval's lower end reaches 1 - delta,
            n + 1 where none is enough; shape (n_rows + 1,), indexed by n.
        invalid: most agreements of n at which its upper end stays below 1 - delta, -1 where
            none is few enough; shape (n_rows + 1,), indexed by n.
        spared: disagreements that still satisfy, at n = 0, 10, 20, ..; ascending.
    """

    satisfied: IntArray
    invalid: IntArray
    spared: IntArray


@lru_cache(maxsize=16)
def thresholds(n_rows: int, delta: float, gamma: float) -> Thresholds:
    """The Clopper-Pearson comparisons of every possible look.

    The lower end at level gamma reaches 1 - delta exactly if so many agreements have a
    probability of at most (1 - gamma) / 2 at an agreement of 1 - delta; the upper end likewise.
    """
    n = np.arange(n_rows + 1)
    tail = (1.0 - gamma) / 2.0
    satisfied = least_count(n, 1.0 - delta, tail)
    invalid = n - least_count(n, delta, tail)
    return Thresholds(satisfied, invalid, (n - satisfied)[::LOOK_EVERY])


def least_count(n: IntArray, rate: float, tail: float) -> IntArray:
    """Least j with P(Bin(n, rate) >= j) <= tail, at most n + 1; shape of `n`."""
    spread = np.sqrt(n * rate * (1.0 - rate))
    count: IntArray = np.clip(np.ceil(n * rate - ndtri(tail) * spread), 0, n + 1).astype(np.int64)
    todo: IntArray = np.arange(n.size)
    while todo.size:  # upwards to a count that is enough
        todo = todo[_upper_tail(count[todo], n[todo], rate) > tail]
        count[todo] += 1
    todo = np.arange(n.size)
    while todo.size:  # downwards while one less is enough too
        todo = todo[_upper_tail(count[todo] - 1, n[todo], rate) <= tail]
        count[todo] -= 1
    return count


def _upper_tail(j: IntArray, n: IntArray, rate: float) -> FloatArray:
    """P(Bin(n, rate) >= j) for j up to n + 1."""
    inside = (j >= 1) & (j <= n)
    at = np.where(inside, j, 1)
    inner = betainc(at, np.where(inside, n - at + 1, 1), rate)
    return np.where(inside, inner, np.where(j <= 0, 1.0, 0.0))


def success(rates: FloatArray, n: int, ks: IntArray, needed: IntArray) -> FloatArray:
    """Chance that each model gains what it needs within k further rows.

    The agreement rate is taken as normal around the observed one, cut off at 0 and 1 without
    renormalising, as published. The integral of a density times a distribution function is
    taken over whichever density is narrower (by parts for the binomial's), so that a fixed
    Gauss-Legendre grid resolves it.

    Args:
        rates: observed agreement rates, strictly between 0 and 1; shape (m,).
        n: rows observed.
        ks: further rows; shape (k,).
        needed: agreements needed among them; shape (m, k).

    Returns:
        Probabilities; shape (m, k).
    """
    sigma = np.sqrt(rates * (1.0 - rates) / n)
    mean, sd = np.broadcast_arrays(rates[:, None], sigma[:, None])
    mean, sd = np.broadcast_to(mean, needed.shape), np.broadcast_to(sd, needed.shape)
    k = np.broadcast_to(ks, needed.shape)
    upper = ndtr((1.0 - mean) / sd)
    result = np.where(needed <= 0, upper - ndtr(-mean / sd), 0.0)
    possible = (needed > 0) & (needed <= k)
    a, b = needed, k - needed + 1  # P(Bin(k, x) >= a) is the distribution of Beta(a, b) at x
    beta_sd = np.sqrt(np.maximum(a * b, 0) / ((a + b) ** 2 * (a + b + 1.0)))
    by_normal = possible & (beta_sd >= sd)
    x, weight = _grid(mean[by_normal], sd[by_normal])
    z = (x - mean[by_normal, None]) / sd[by_normal, None]
    density = np.exp(-0.5 * z * z) / (np.sqrt(2.0 * np.pi) * sd[by_normal, None])
    tail = betainc(a[by_normal, None], b[by_normal, None], x)
    result[by_normal] = (weight * density * tail).sum(axis=1)
    by_beta = possible & ~by_normal
    a, b = a[by_beta].astype(float), b[by_beta].astype(float)
    x, weight = _grid(a / (a + b), beta_sd[by_beta])
    log_density = (a[:, None] - 1) * np.log(x) + (b[:, None] - 1) * np.log1p(-x)
    weight = weight * np.exp(log_density - log_density.max(axis=1, keepdims=True, initial=-np.inf))
    below = ndtr((x - mean[by_beta, None]) / sd[by_beta, None])
    result[by_beta] = upper[by_beta] - (weight * below).sum(axis=1) / weight.sum(axis=1)
    return np.asarray(result)


def _grid(mean: FloatArray, sd: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Quadrature nodes and weights around each mean, inside (0, 1); shape (size, nodes)."""
    low = np.maximum(mean - REACH * sd, 0.0)[:, None]
    half = (np.minimum(mean + REACH * sd, 1.0)[:, None] - low) / 2.0
    return low + half * (NODES + 1.0), half * NODE_WEIGHTS


def cheapest_pair(
    accuracy: FloatArray, cost: FloatArray, target: float, allowed: BoolArray
) -> tuple[int, int, float]:
    """The cheapest mixture of two options that reaches an accuracy.

    It solves min sum(cost x) subject to sum(accuracy x) >= target, sum(x) = 1, x >= 0: with two
    constraints a best solution uses at most two options.

    Args:
        accuracy, cost: of each option; shape (n,). One allowed option must reach the target.
        allowed: pairs that may be mixed, single options on the diagonal; shape (n, n).

    Returns:
        The better option, the other one, and the share of the better one.
    """
    high, low = accuracy[:, None], accuracy[None, :]
    gap = high - low
    mixes = allowed & (high >= target) & (low < target)
    share = np.where(mixes, (target - low) / np.where(gap > 0, gap, 1.0), 1.0)
    total = share * cost[:, None] + (1.0 - share) * cost[None, :]
    alone = np.diag(np.diag(allowed) & (accuracy >= target))
    total = np.where(mixes | alone, total, np.inf)
    better, worse = np.unravel_index(int(np.argmin(total)), total.shape)
    return int(better), int(worse), float(share[better, worse])


def split(count: int, shares: FloatArray) -> IntArray:
    """Whole parts of `count` in proportion: the largest share first, each of what is left."""
    parts = np.zeros(shares.size, dtype=np.int64)
    order = np.argsort(-shares, kind="stable")
    open_shares = np.cumsum(shares[order][::-1])[::-1]
    left = count
    for i, open_share in zip(order, open_shares, strict=True):
        share = float(shares[i] / open_share) if open_share > 0.0 else 1.0
        parts[i] = round(left * share)
        left -= int(parts[i])
    return parts
