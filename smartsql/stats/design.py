"""The residual-credit design: when an audit may stop, and how many rows it then frees.

Rows lie in random order. An audit asks the reference and a candidate about the first n rows and
finds b errors of the candidate; those rows keep the reference's answer, so each error found is an
error repaired. Deploying the candidate on rows n to K goes wrong only if more than d errors lie
there, that is if the first K rows hold at least d + 1 + b errors. The p-value of that hypothesis,

    p(K; n, b) = P(at most b errors among n of K rows that hold d + 1 + b),

grows with K and with b and falls with n. A design fixes, before its first row is seen, the looks
n_k with the error counts B_k up to which all rows are freed, and for its last look the prefix
K(b) for every b. How likely it errs on a table with D errors is computed in `risk`; `calibrate`
scales its levels until the worst D is as likely as it may be.

Sources: group-sequential tests (Jennison and Turnbull 2000), with the levels calibrated exactly
on a finite population; crediting repaired errors is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from smartsql.stats.hypergeometric import at_most
from smartsql.types import FloatArray, IntArray

LAST_LOOK = 0.97
"""Early looks beyond this share of the last one are left out: they save too little."""
PREFIX_FACTOR = 1.6
"""Level of the prefix rule relative to that of accepting all rows."""
PREFIX_SHARE = 0.96
"""... and at most this share of alpha."""
STEP = 0.15
"""Early looks lie at error counts that grow by this share."""
COARSE_STEP = 0.30
COARSE_ABOVE = 400
"""... or by COARSE_STEP when the last look expects more errors than this at the tolerated rate."""
WIDEST_CAP = 0.6
"""Share of errors beyond which the last look frees the tolerated rows only."""
WIDE_UP_TO = 2000
"""With more rows than this the share is 3 d / N + .08 if that is less: a large audit is not begun
for a candidate that is worse, and the many prefixes would take long to compute."""
PREFIX_GAP = 0.12
"""Prefixes are computed at counts this many standard deviations apart; counts in between take
the next shorter one."""


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """A fixed plan of an audit.

    Attributes:
        n_rows: rows in random order that the design is about.
        tolerated: deployed rows that may be wrong.
        last: rows audited at most.
        ramp: power with which early looks get lower levels; 0 gives all the same.
        alpha: probability with which the design may free too many errors.
        level: nominal level of the looks; calibration sets it so that alpha holds.
        looks: audited rows at each look, increasing; the last entry is `last`.
        bounds: errors found up to which a look frees all rows; -1 for none.
        cap: errors found up to which the last look frees more than `tolerated` rows.
        prefixes: end of the freed rows for each count of errors from bounds[-1] + 1 to cap.
    """

    n_rows: int
    tolerated: int
    last: int
    ramp: float
    alpha: float
    level: float
    looks: IntArray = field(repr=False)
    bounds: IntArray = field(repr=False)
    cap: int
    prefixes: IntArray = field(repr=False)

    def prefix(self, found: int) -> int:
        """End of the freed rows when the last look has found so many errors."""
        bound = int(self.bounds[-1])
        if found <= bound:
            return self.n_rows
        if found > self.cap:
            return min(self.n_rows, self.last + self.tolerated)
        return int(self.prefixes[found - bound - 1])


def draw_up(
    n_rows: int,
    tolerated: int,
    last: int,
    ramp: float,
    alpha: float,
    level: float,
    gap: float = PREFIX_GAP,
) -> Design:
    """The design with a given nominal level; `calibrate` finds the level.

    Args:
        n_rows: rows in random order, above `tolerated`.
        tolerated: deployed rows that may be wrong.
        last: rows audited at most, in [1, n_rows).
        ramp: see `Design`.
        alpha: see `Design`; only limits the level of the prefix rule here.
        level: nominal level, in (0, 1).
        gap: distance of the counts at which prefixes are computed, in standard deviations.
    """
    expected = last * tolerated / n_rows
    bound = _largest_bound(n_rows, tolerated, last, level)
    steps = _error_steps(bound, COARSE_STEP if expected > COARSE_ABOVE else STEP)
    levels = level * np.minimum(1.0, ((steps + 1) / max(3.0, 0.6 * expected)) ** ramp)
    looks = _look_positions(n_rows, tolerated, last, steps, levels)
    early = looks < LAST_LOOK * last
    share = WIDEST_CAP
    if last > WIDE_UP_TO:
        share = min(WIDEST_CAP, 3 * tolerated / n_rows + 0.08)
    cap = max(bound, int(last * share))
    prefix_level = max(level, min(PREFIX_SHARE * alpha, PREFIX_FACTOR * level))
    return Design(
        n_rows,
        tolerated,
        last,
        ramp,
        alpha,
        level,
        np.append(looks[early], last),
        np.append(steps[early], bound),
        cap,
        _prefixes(n_rows, tolerated, last, bound, cap, prefix_level, gap),
    )


def _largest_bound(n_rows: int, tolerated: int, drawn: int, level: float) -> int:
    """Most errors found among `drawn` rows at which all rows may be freed; -1 if none."""
    low, high = -1, drawn + 1
    while high - low > 1:
        middle = (low + high) // 2
        p = float(at_most(n_rows, tolerated + 1 + middle, drawn, middle))
        low, high = (middle, high) if p <= level else (low, middle)
    return low


def _error_steps(bound: int, step: float) -> IntArray:
    """Error counts at which early looks lie: 0, 1, 2, ... with gaps that grow."""
    steps = [0]
    while (following := steps[-1] + max(1, round(step * steps[-1]))) <= bound:
        steps.append(following)
    return np.array(steps if bound >= 0 else [], dtype=np.int64)


def _look_positions(
    n_rows: int, tolerated: int, last: int, steps: IntArray, levels: FloatArray
) -> IntArray:
    """Fewest rows after which each count of errors is significant; increasing, shape of steps."""
    errors = tolerated + 1 + steps

    def significant(drawn: IntArray) -> np.ndarray:
        return at_most(n_rows, errors, drawn, steps) <= levels

    positions = _bisect(np.zeros_like(steps), np.full_like(steps, last), significant)
    # looks must be apart; where levels rise steeply a later count may be significant earlier
    index = np.arange(steps.size)
    return np.maximum.accumulate(positions - index) + index


def _prefixes(
    n_rows: int, tolerated: int, last: int, bound: int, cap: int, level: float, gap: float
) -> IntArray:
    """Longest prefix that may be freed for each count of errors in (bound, cap]."""
    found = np.arange(bound + 1, cap + 1, dtype=np.int64)
    if found.size == 0:
        return found
    # each stretch of counts takes the prefix of its last count, the shortest of them
    gaps = np.maximum(1.0, gap * np.sqrt(np.maximum(found, 0)))
    stretch = np.floor(np.cumsum(1 / gaps) - 1e-9).astype(np.int64)
    chosen = found[np.append(stretch[1:] != stretch[:-1], True)]
    errors = tolerated + 1 + chosen

    def too_long(end: IntArray) -> np.ndarray:
        return at_most(end, errors, last, chosen) > level

    safe = np.full_like(chosen, min(n_rows, last + tolerated))
    ends = _bisect(safe, np.full_like(chosen, n_rows), too_long)
    ends = np.where(too_long(ends), ends - 1, ends)
    ends = np.minimum.accumulate(np.maximum(ends, safe))
    return ends[np.searchsorted(chosen, found)]


def _bisect(low: IntArray, high: IntArray, holds: Callable[[IntArray], np.ndarray]) -> IntArray:
    """Smallest integer in (low, high] from which `holds` is true; `high` if it never is."""
    low, high = low.copy(), high.copy()
    while (high - low > 1).any():
        middle = (low + high) // 2
        true = holds(middle)
        high = np.where(true, middle, high)
        low = np.where(true, low, middle)
    return high
