"""The level at which a design keeps its promise on every table.

The risk of a design is known exactly for any number D of errors. Calibration finds the largest
nominal level for which the worst D stays within alpha. The worst D lies near d + B_last and is
easily missed by a coarse search, hence the dense grid that has the last word.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from smartsql.errors import ParameterError
from smartsql.stats.design import PREFIX_GAP, Design, draw_up
from smartsql.stats.risk import risk
from smartsql.types import IntArray

MARGIN = 0.98
"""Share of alpha that a calibrated design may use; the rest covers D between grid points."""
AIM = 0.97
"""Share of alpha that the search on the coarse grid aims at."""
CLOSE = 0.015
"""The search ends when the level is known to this relative precision, or after `TRIALS`."""
TRIALS = 9
SMALLEST_ALPHA = 1e-7
"""Least alpha of a design; the risk is known to about 1e-9."""
EVERY_BELOW = 500
"""Every D is checked where there are fewer than this."""
SHRINK = 0.985
"""Least step down while the dense grid finds the risk too high."""


@dataclass(frozen=True, slots=True)
class Worst:
    """The number of errors at which a design is most likely to break the promise.

    Attributes:
        risk: the probability there.
        errors: the number of errors D in the design's rows.
    """

    risk: float
    errors: int


def worst_case(design: Design) -> Worst:
    """Highest risk of a design on the dense grid."""
    grid = dense_grid(design)
    risks = risk(design, grid)
    at = int(np.argmax(risks))
    return Worst(float(risks[at]), int(grid[at]))


@lru_cache(maxsize=512)
def calibrate(
    n_rows: int, tolerated: int, last: int, ramp: float, alpha: float
) -> tuple[Design, Worst]:
    """The design of largest level whose risk is at most `MARGIN` * alpha for every D.

    Args:
        n_rows: rows in random order, above `tolerated`.
        tolerated: deployed rows that may be wrong, at least 1.
        last: rows audited at most, in [1, n_rows).
        ramp: 0 for equal levels at all looks, 1 for levels in proportion to the look.
        alpha: allowed probability of freeing more than `tolerated` errors.

    Returns:
        The design, and its worst case.

    Raises:
        ParameterError: alpha below `SMALLEST_ALPHA`, where rounding would matter.
    """
    if not SMALLEST_ALPHA <= alpha < 1.0:
        raise ParameterError(
            f"alpha is {alpha:.3g}; a design can be calibrated for {SMALLEST_ALPHA:g} and more. "
            f"Have the reference answer all rows instead."
        )
    design = search(n_rows, tolerated, last, ramp, alpha, trials=TRIALS)
    suspects: list[int] = []
    while (worst := worst_case(design)).risk > MARGIN * alpha:
        suspects.append(worst.errors)
        highest = worst.risk
        # the level falls in each round; at a very low one no look frees more than is tolerated
        while highest > MARGIN * alpha:
            level = design.level * min(SHRINK, max(0.7, 0.975 * alpha / highest))
            design = draw_up(n_rows, tolerated, last, ramp, alpha, level)
            highest = float(risk(design, np.array(suspects)).max())
    return design, worst


def search(
    n_rows: int,
    tolerated: int,
    last: int,
    ramp: float,
    alpha: float,
    trials: int,
    gap: float = PREFIX_GAP,
) -> Design:
    """A design whose risk on a coarse grid of D is close to `AIM` * alpha; for plans only."""
    low, high = 0.0, np.inf
    level = 0.6 * alpha * (0.45 + 0.35 * ramp)
    best = None
    for _ in range(trials):
        design = draw_up(n_rows, tolerated, last, ramp, alpha, level, gap)
        worst = float(risk(design, coarse_grid(design)).max(initial=0.0))
        if worst <= AIM * alpha:
            low, best = level, design
        else:
            high = level
        # risk is nearly proportional to the level, but for the jumps of whole numbers
        guess = level * float(np.clip(AIM * alpha / max(worst, 1e-12), 0.4, 1.7)) * 0.998
        if low > 0 and high < np.inf:
            if high / low < 1 + CLOSE:
                break
            inside = low + 0.1 * (high - low) < guess < high - 0.1 * (high - low)
            guess = guess if inside else 0.5 * (low + high)
        level = min(guess, 0.95 * alpha)
        if level == low:
            break
    if best is None:
        return draw_up(n_rows, tolerated, last, ramp, alpha, level, gap)
    return best


def _highest_relevant(design: Design) -> int:
    """Errors D beyond which the last look almost surely finds more than `cap`."""
    n, last = design.n_rows, design.last
    rates = np.linspace(0.0, 1.0, 2001)[1:]
    spread = np.sqrt(last * rates * (1 - rates) * (1 - last / n))
    beyond = last * rates - 4.5 * spread > design.cap
    return min(n, int(np.ceil(n * rates[np.argmax(beyond)]))) if beyond.any() else n


def dense_grid(design: Design) -> IntArray:
    """Numbers of errors at which the risk is checked; increasing from tolerated + 1.

    All up to d + 120, closely on to where early looks accept, then in steps of a tenth of a
    standard deviation, over which the risk changes by far less than the margin.
    """
    start = design.tolerated + 1
    stop = max(start, _highest_relevant(design))
    if stop - start < EVERY_BELOW:
        return np.arange(start, design.n_rows + 1)[: EVERY_BELOW + 1]
    reach = 3 * max(0, int(design.bounds[-1])) + 40
    near = np.arange(min(reach, 120))
    spaced = np.linspace(0, reach, 161).astype(np.int64)
    grid = np.concatenate(
        [start + near, start + spaced, _thinning_grid(design, start + reach, stop)]
    )
    return np.unique(grid[grid <= design.n_rows])


def _thinning_grid(design: Design, start: int, stop: int) -> IntArray:
    """Steps of .1 standard deviations from `start` until `stop` is passed."""
    n, last = design.n_rows, design.last
    points, at = [], float(start)
    while at < stop:
        points.append(int(at))
        rate = at / n
        spread = n * np.sqrt(rate * (1 - rate) / last * (1 - last / n))
        # the risk is flat here; where a tenth would be thousands of points, up to .3 will do
        at += max(1.0, 0.1 * spread, min(0.3 * spread, (stop - start) / 300))
    return np.array([*points, stop], dtype=np.int64)


def coarse_grid(design: Design) -> IntArray:
    """Few numbers of errors that show about how high the risk is."""
    start = design.tolerated + 1
    reach = 3 * max(0, int(design.bounds[-1])) + 40
    near = start + np.unique((np.linspace(0.0, 1.0, 41) ** 1.5 * 0.7 * reach).astype(np.int64))
    far = start + reach + np.array([0, reach, 3 * reach])
    grid = np.concatenate([near, far, [int(1.5 * start)]])
    return np.unique(grid[grid <= design.n_rows])
