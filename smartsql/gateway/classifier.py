"""A linear classifier over hashed features: its weights, what it answers, and how it is fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from smartsql.types import FloatArray, IntArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MOST_STEPS, MOST_TURNS = 50, 100
DECREASE = 1e-4
"""A fit ends when a step makes less than this difference. Held-out answers do not change when it
goes on."""
PRECISION = 1e-2
"""Share of the squared gradient that a step may leave."""
TEMPERATURES = (-1.5, 1.5)
"""Range of the logarithm of a temperature."""
SURE_OF_TEMPERATURE = 0.3
"""Standard deviation that its logarithm is expected to have before any label is seen."""

Features = Callable[[Sequence[str]], "csr_matrix"]


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """A fitted classifier; immutable, for any thread.

    Attributes:
        answers: what it tells apart, ascending, at least two.
        columns: features that have a weight, ascending; shape (k,).
        weights: of each answer against the rest, the constant last; shape (n_answers, k + 1).
        temperature: margins are divided by it before they become probabilities.
        unseen: probability that the right answer is one it never saw.
        labels: answers of the reference it has learned from in its life.
    """

    answers: tuple[str, ...]
    columns: IntArray
    weights: FloatArray
    temperature: float = 1.0
    unseen: float = 0.0
    labels: int = 0

    def margins(self, x: csr_matrix) -> FloatArray:
        """Log-odds of each answer against the rest; shape (n, n_answers)."""
        return np.asarray(x[:, self.columns] @ self.weights[:, :-1].T + self.weights[:, -1])

    def odds(self, x: csr_matrix) -> FloatArray:
        """Probability of each answer; shape (n, n_answers)."""
        return shares(self.margins(x) / self.temperature)

    def answered(self, x: csr_matrix) -> tuple[list[str], list[float]]:
        """The likeliest answer for each row of features, and its probability."""
        odds = self.odds(x)
        best = odds.argmax(axis=1)
        sure = (odds.max(axis=1) * (1.0 - self.unseen)).clip(0.0, 1.0)
        return [self.answers[code] for code in best.tolist()], sure.tolist()

    def laid_out(self, answers: tuple[str, ...], columns: IntArray) -> FloatArray:
        """The weights for these answers and columns, 0 where it knows nothing of them.

        Args:
            answers: may lack some of its own and have others.
            columns: ascending, all of its own among them.
        """
        found = np.zeros((len(answers), columns.size + 1))
        at = np.append(np.searchsorted(columns, self.columns), columns.size)
        for row, answer in enumerate(answers):
            if answer in self.answers:
                found[row, at] = self.weights[self.answers.index(answer)]
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows to fit.

    Attributes:
        x: features; shape (n, k + 1), the last column 1.
        codes: position of each row's answer; shape (n,).
        weights: how much each row counts; shape (n,).
    """

    x: Any
    codes: IntArray
    weights: FloatArray

    def taken(self, rows: IntArray) -> Rows:
        """Some of the rows."""
        return Rows(self.x[rows], self.codes[rows], self.weights[rows])


def shares(margins: FloatArray) -> FloatArray:
    """Margins of one answer against the rest as probabilities that add up to 1."""
    from scipy.special import expit

    odds = expit(margins)
    return np.asarray(odds / np.maximum(odds.sum(axis=1, keepdims=True), 1e-300))


def columns_of(features: Sequence[csr_matrix], start: Classifier | None) -> IntArray:
    """Columns that can have a weight, ascending: those that occur, and those of the start."""
    found = [np.unique(np.asarray(x.indices, dtype=np.int64)) for x in features]
    if start is not None:
        found.append(start.columns)
    return np.unique(np.concatenate(found))


def with_constant(x: csr_matrix, columns: IntArray) -> Any:
    """Some columns of features and, last, one of ones; shape (n, k + 1)."""
    from scipy.sparse import csr_matrix as sparse
    from scipy.sparse import hstack

    return hstack([x[:, columns], sparse(np.ones((x.shape[0], 1)))], format="csr")


def moved(start: FloatArray, rows: Rows, strength: float) -> FloatArray:
    """Weights fitted to rows, held to the weights they start from.

    One answer against the rest, each by ridge logistic regression: the sum of losses times
    `strength`, and half the squared distance from the start. Two answers need one regression,
    the other is its mirror image.

    Args:
        start: shape (n_answers, k + 1).
    """
    if rows.codes.size == 0:
        return start
    found = start.copy()
    offsets = rows.x @ start.T
    if start.shape[0] == 2:
        step = ridge(rows.x, rows.codes == 1, rows.weights * strength, offsets[:, 1])
        found[1] += step
        found[0] -= step
        return found
    for code in range(start.shape[0]):
        mine = rows.codes == code
        found[code] += ridge(rows.x, mine, rows.weights * strength, offsets[:, code])
    return found


def ridge(x: Any, y: Any, weights: FloatArray, offsets: FloatArray) -> FloatArray:
    """Coefficients of a logistic regression with a unit ridge and fixed offsets; shape (k,).

    Newton steps, each solved by conjugate gradients: with many more columns than rows that takes
    a third of the time of a quasi-Newton method, whose own vectors are as long as the columns are
    many.

    Args:
        x: sparse or dense; shape (n, k).
        y: which rows are of the class; shape (n,).
    """
    from scipy.special import expit

    across = x.T.tocsr() if hasattr(x, "tocsr") else x.T
    signs = np.where(y, 1.0, -1.0)

    def loss(margins: FloatArray, w: FloatArray) -> float:
        surprise = np.logaddexp(0.0, -signs * margins)
        return float(weights @ surprise) + 0.5 * float(w @ w)

    w = np.zeros(x.shape[1])
    margins = np.array(offsets, dtype=np.float64)
    value = loss(margins, w)
    for _ in range(MOST_STEPS):
        slack = expit(-signs * margins)
        gradient = across @ (-weights * signs * slack) + w
        step = _newton(x, across, weights * slack * (1.0 - slack), gradient)
        along = x @ step
        scale = 1.0
        while (new := loss(margins + scale * along, w + scale * step)) > value and scale > 1e-4:
            scale /= 2.0
        if new > value:
            break
        w, margins = w + scale * step, margins + scale * along
        value, fell = new, value - new
        if fell <= DECREASE * max(abs(value), 1.0):
            break
    return w


def _newton(x: Any, across: Any, curvature: FloatArray, gradient: FloatArray) -> FloatArray:
    """A step to the minimum of the quadratic with this curvature; conjugate gradients."""
    step = np.zeros(gradient.size)
    left = -gradient
    way = left.copy()
    size = float(left @ left)
    enough = PRECISION * size
    for _ in range(MOST_TURNS):
        if size <= enough:
            break
        bent = across @ (curvature * (x @ way)) + way
        share = size / float(way @ bent)
        step += share * way
        left -= share * bent
        before, size = size, float(left @ left)
        way = left + size / before * way
    return step


def temperature(margins: FloatArray, codes: IntArray) -> float:
    """The temperature at which held-out margins say best how sure they are.

    Args:
        margins: of rows that the weights were not fitted to; shape (n, n_answers).
        codes: the right answers; shape (n,).

    Source: Guo et al., On Calibration of Modern Neural Networks (ICML 2017), section 4.2; the
        prior that keeps it near 1 on few labels is ours.
    """
    from scipy.optimize import minimize_scalar

    at = np.arange(codes.size)

    def loss(log: float) -> float:
        right = shares(margins / np.exp(log))[at, codes]
        surprise = -np.log(np.maximum(right, 1e-12)).sum()
        return float(surprise + 0.5 * (log / SURE_OF_TEMPERATURE) ** 2)

    best = minimize_scalar(loss, bounds=TEMPERATURES, method="bounded")
    return float(np.exp(best.x))


def rounded(classifier: Classifier) -> Classifier:
    """The same in the precision in which it is kept, without columns that weigh nothing."""
    weights = classifier.weights.astype(np.float32).astype(np.float64)
    used = (weights[:, :-1] != 0.0).any(axis=0)
    kept = np.column_stack([weights[:, :-1][:, used], weights[:, -1]])
    return replace(classifier, columns=classifier.columns[used], weights=kept)
