"""Bets on the mean of bits drawn without replacement: BARGAIN's test."""

from __future__ import annotations

import numpy as np

from smartsql.types import BoolArray, FloatArray

TRUNCATION = 0.75
"""Share of the capital that a bet may lose at most."""
_ROUNDING = 1e-9


def log_capital(bits: BoolArray, mean: float, alpha: float, size: int) -> FloatArray:
    """Log capital of bets that a finite population's mean exceeds `mean`, after each draw.

    If the mean is at most `mean`, the capital is a non-negative supermartingale that starts at 1,
    so the chance that it ever reaches 1 / alpha is at most alpha, however often it is looked at.

    Args:
        bits: draws without replacement, in their order; shape (n,).
        mean: the hypothesis, that at most `mean * size` of the population are 1.
        alpha: level for which the stakes are laid out.
        size: of the population, at least n.

    Returns:
        Logarithms; infinite from where the draws alone refute the hypothesis; shape (n,).

    Source: Waudby-Smith and Ramdas (arXiv 2010.09686), sections on betting without replacement,
    with the stakes of BARGAIN (SIGMOD 2026; bounds in its published code).
    """
    x = bits.astype(np.float64)
    t = np.arange(1, x.size + 1, dtype=np.float64)
    before = np.concatenate([[0.0], np.cumsum(x)[:-1]])
    # the hypothesis about what is left before each draw
    left = (size * mean - before) / (size - (t - 1.0))
    guess = (0.5 + before) / t
    # sum of squares about the guess, for bits: ones (1 - 2 guess) + count * guess^2
    spread = (0.25 + before * (1.0 - 2.0 * guess) + (t - 1.0) * guess**2) / t
    bets = left > _ROUNDING
    safe = np.where(bets, left, 1.0)
    stake = np.sqrt(2.0 * np.log(2.0 / alpha) / (t * np.log(t + 1.0) * spread))
    stake = np.minimum(stake, TRUNCATION / safe)
    gains = np.log1p(stake * (x - safe))
    # all ones that the hypothesis allows are drawn: one more refutes it, a zero says nothing
    gains[~bets] = np.where(x[~bets] > left[~bets] + _ROUNDING, np.inf, 0.0)
    return np.cumsum(gains)
