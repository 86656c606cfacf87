"""Ridge logistic regression that predicts which answers are wrong.

Its predictions price plans and bets. A wrong prediction costs money, never the promise.
"""

from __future__ import annotations

import numpy as np

from smartsql.types import FloatArray

LEAST_RATE, MOST_RATE = 0.004, 0.98
MOST_LABELS = 20_000
"""Labels a fit uses at most; more hardly change it."""


def fit(
    x: FloatArray,
    y: FloatArray,
    prior: FloatArray,
    precision: FloatArray,
    start: FloatArray | None = None,
    steps: int = 12,
) -> FloatArray:
    """Coefficients of greatest posterior density, by damped Newton steps.

    Args:
        x: evidence, the first column 1; shape (n, f).
        y: 1 for a wrong answer, 0 for a right one; shape (n,).
        prior: prior means; shape (f,).
        precision: prior precisions; shape (f,).
        start: where to start, the prior means by default.
    """
    if y.size > MOST_LABELS:
        x, y = x[-MOST_LABELS:], y[-MOST_LABELS:]
    beta = prior.copy() if start is None else start.copy()
    loss = _loss(x, y, beta, prior, precision)
    for _ in range(steps):
        p = sigmoid(x @ beta)
        gradient = x.T @ (p - y) + precision * (beta - prior)
        curvature = (x * (p * (1 - p))[:, None]).T @ x + np.diag(precision)
        step = np.linalg.solve(curvature, gradient)
        scale = 1.0
        while True:
            moved = beta - scale * step
            new = _loss(x, y, moved, prior, precision)
            if new <= loss or scale < 1e-3:
                break
            scale /= 2
        if new > loss:
            break
        done = loss - new < 1e-6 * (1 + abs(new))
        beta, loss = moved, new
        if done:
            break
    return beta


def rates(x: FloatArray, beta: FloatArray) -> FloatArray:
    """Predicted error rates, kept away from 0 and 1; shape (n,)."""
    return np.clip(sigmoid(x @ beta), LEAST_RATE, MOST_RATE)


def prices(own: FloatArray, known: FloatArray, paid: FloatArray) -> FloatArray:
    """What the reference's calls would cost, from what another model's calls cost.

    Args:
        own: cost of the other model's call for each item; shape (n,).
        known: the same for items that the reference was asked; shape (k,).
        paid: cost of the reference's calls there; shape (k,).

    Returns:
        Expected costs by a straight line, in units of their mean, within [1/5, 5]; shape (n,).
    """
    spread = float(own.std())
    if spread <= 1e-9 * float(own.mean()) or known.size < 3 or float(paid.mean()) <= 0.0:
        return np.ones(own.size)
    x = (known - own.mean()) / spread
    y = paid / paid.mean()
    centre = float(x.mean())
    # a few calls say little of the slope: it is drawn towards 0
    slope = float(((x - centre) * (y - 1.0)).sum()) / (float(((x - centre) ** 2).sum()) + 1.0)
    line = 1.0 + slope * ((own - own.mean()) / spread - centre)
    line = np.clip(line, 0.2, 5.0)
    return np.asarray(line / line.mean())


def sigmoid(z: FloatArray) -> FloatArray:
    """Logistic function."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))


def _loss(
    x: FloatArray, y: FloatArray, beta: FloatArray, prior: FloatArray, precision: FloatArray
) -> float:
    """Negative log posterior up to a constant."""
    z = x @ beta
    moved = beta - prior
    return float((np.logaddexp(0.0, z) - y * z).sum() + 0.5 * (precision * moved * moved).sum())
