"""Drawing rows without replacement: exact probabilities, many at once.

`population` rows hold `errors` wrong ones; `drawn` rows are taken; `found` of them are wrong.
All functions take arrays of any shapes that broadcast, and work in log factorials from a table,
so that a million probabilities take a fraction of a second without compiled code.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from smartsql.types import FloatArray, IntArray

BLOCK = 32
"""Terms of a tail that are added at once."""
CELLS = 2048
"""Tails that are summed at once; BLOCK * CELLS numbers stay in the processor's cache."""
NEGLIGIBLE = 1e-13
"""A tail is cut where a further term is below this share of its sum."""


@lru_cache(maxsize=8)
def _log_factorial_table(size: int) -> FloatArray:
    """Logarithms of 0! to (size-1)!: exact sums at the start, Stirling's series after that."""
    table = np.zeros(size)
    start = min(size, 64)
    table[:start] = np.cumsum(np.log(np.maximum(np.arange(start), 1)))
    n = np.arange(start, size, dtype=np.float64)
    series = 1 / (12 * n) - 1 / (360 * n**3) + 1 / (1260 * n**5)
    table[start:] = (n + 0.5) * np.log(n) - n + 0.5 * np.log(2 * np.pi) + series
    table.flags.writeable = False
    return table


def log_factorials(largest: int) -> FloatArray:
    """Table whose entry n is log(n!), for n up to at least `largest`."""
    return _log_factorial_table(1 << max(10, int(largest + 1).bit_length()))


def log_pmf(
    population: ArrayLike, errors: ArrayLike, drawn: ArrayLike, found: ArrayLike
) -> FloatArray:
    """Logarithm of P(`found` errors among `drawn` rows); -inf where impossible."""
    m, r, n, x = np.broadcast_arrays(
        *(np.asarray(v, dtype=np.int64) for v in (population, errors, drawn, found))
    )
    possible = (x >= 0) & (x <= r) & (x <= n) & (n - x <= m - r) & (r <= m) & (n <= m)
    table = log_factorials(int(m.max(initial=0)))

    def lf(count: IntArray) -> FloatArray:
        # an impossible count may point outside the table; its result is replaced below
        return table.take(count, mode="clip")

    out = lf(r) - lf(x) - lf(r - x)
    out += lf(m - r) - lf(n - x) - lf(m - r - n + x)
    out -= lf(m) - lf(n) - lf(m - n)
    return np.where(possible, out, -np.inf)


def pmf(population: ArrayLike, errors: ArrayLike, drawn: ArrayLike, found: ArrayLike) -> FloatArray:
    """P(exactly `found` errors among `drawn` rows)."""
    return np.exp(log_pmf(population, errors, drawn, found))


def at_most(
    population: ArrayLike, errors: ArrayLike, drawn: ArrayLike, found: ArrayLike
) -> FloatArray:
    """P(at most `found` errors among `drawn` rows); 0 where fewer are impossible.

    Where `errors` exceeds `population` no such table exists and the result is 0, so a null
    hypothesis that arithmetic excludes is rejected for certain.
    """
    m, r, n, x = np.broadcast_arrays(
        *(np.asarray(v, dtype=np.int64) for v in (population, errors, drawn, found))
    )
    shape = m.shape
    m, r, n, x = (np.ascontiguousarray(v).ravel() for v in (m, r, n, x))
    exists = r <= m
    out = np.where(exists & (x >= np.minimum(r, n)), 1.0, 0.0)
    open_ = exists & (x >= np.maximum(r + n - m, 0)) & (out == 0.0)
    below = open_ & (x * m <= n * r)
    above = open_ & ~below
    at = np.flatnonzero(below)
    out[at] = _falling_sum(m[at], r[at], n[at], x[at])
    # above the mean the other side is shorter: more than x errors is fewer than n - x good rows
    at = np.flatnonzero(above)
    out[at] = 1.0 - _falling_sum(m[at], m[at] - r[at], n[at], n[at] - x[at] - 1)
    return out.reshape(shape)


def more_than(
    population: ArrayLike, errors: ArrayLike, drawn: ArrayLike, found: ArrayLike
) -> FloatArray:
    """P(more than `found` errors among `drawn` rows), without cancellation for small values."""
    m, r, n, x = (np.asarray(v, dtype=np.int64) for v in (population, errors, drawn, found))
    return at_most(m, m - r, n, n - x - 1)


def _falling_sum(m: IntArray, r: IntArray, n: IntArray, x: IntArray) -> FloatArray:
    """Sum of the probabilities of x, x-1, ... errors, for x not above the mean; shape (k,)."""
    out = np.zeros(x.size)
    for start in range(0, x.size, CELLS):
        cut = slice(start, start + CELLS)
        out[cut] = _falling_block(m[cut], r[cut], n[cut], x[cut])
    return out


def _falling_block(m: IntArray, r: IntArray, n: IntArray, x: IntArray) -> FloatArray:
    """`_falling_sum` for few tails: ratios of neighbouring terms, a block of terms at a time."""
    first = pmf(m, r, n, x)
    sums = np.ones(x.size)
    at = np.arange(x.size)
    carry = np.ones(x.size)
    slack = (m - r - n).astype(np.float64)
    r, n, x = r.astype(np.float64), n.astype(np.float64), x.astype(np.float64)
    steps = np.arange(BLOCK, dtype=np.float64)[:, None]
    while at.size:
        level = x - steps
        ratio = level * (slack + level)
        ratio /= (r + 1 - level) * (n + 1 - level)
        # the product stays 0 once the lowest possible count is passed
        np.maximum(ratio, 0.0, out=ratio)
        ratio[0] *= carry
        np.cumprod(ratio, axis=0, out=ratio)
        sums[at] += ratio.sum(axis=0)
        carry = ratio[-1]
        left = carry > NEGLIGIBLE * sums[at]
        at, carry, slack, r, n = at[left], carry[left], slack[left], r[left], n[left]
        x = x[left] - BLOCK
    return np.asarray(first * sums)
