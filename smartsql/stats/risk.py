"""How a design can end, and with what probability on a table with D errors. Exact.

The order of the rows is uniform. Given that the first n rows hold b errors, how those b lie among
the n does not depend on D, hence neither does the chance that no earlier look has stopped the
audit. Every way to end therefore has a weight computed once, and

    P(end at n with b errors | D) = weight * P(b errors among n of N rows with D errors).

One triangular system gives the weights, and one product gives the risk for all D at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smartsql.stats.design import Design
from smartsql.stats.hypergeometric import more_than, pmf
from smartsql.types import FloatArray, IntArray

TINY = 1e-10
"""Ways to end that are less likely than this are counted as if they broke the promise."""
CHUNK = 64
"""Counts of errors whose survival is computed at once."""
REACH = 64.0
"""Endings so unlikely that gap^2 > REACH * (variance + gap / 3) are left out, where gap is the
distance of the errors found from their mean. By Bernstein's inequality each look leaves out at
most 2 exp(-REACH / 2) = 2.5e-14: errors among draws without replacement are distributed as a sum of
independent indicators (Vatutin and Mikhailov 1982), so it holds with their own variance."""
OUT_OF_REACH = 1e-10
"""Added for all that is left out; a design has fewer than a thousand looks."""
MAX_CELLS = 1 << 20
"""Probabilities held in memory at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Endings:
    """All ways in which a design ends, but for the one beyond its cap.

    Attributes:
        drawn: rows audited; shape (k,).
        found: errors found; shape (k,).
        end: end of the freed rows; shape (k,).
        weight: chance that no earlier look stopped, given `found` among `drawn`; shape (k,).
    """

    drawn: IntArray
    found: IntArray
    end: IntArray
    weight: FloatArray


def endings(design: Design) -> Endings:
    """The ways in which a design ends, with their weights."""
    drawn, found = _accepted_early(design)
    weight = np.ones(found.size)
    looks, starts = np.unique(drawn, return_index=True)
    stops = np.append(starts[1:], found.size)
    for n, start, stop in zip(looks[1:], starts[1:], stops[1:], strict=True):
        weight[start:stop] = _survival(
            int(n), found[start:stop], drawn[:start], found[:start], weight[:start]
        )
    previous = int(design.bounds[-2]) if design.bounds.size > 1 else -1
    last_found = np.arange(previous + 1, design.cap + 1, dtype=np.int64)
    last_weight = _survival(design.last, last_found, drawn, found, weight)
    freed = last_found <= design.bounds[-1]
    last_end = np.full(last_found.size, design.n_rows, dtype=np.int64)
    last_end[~freed] = design.prefixes
    return Endings(
        np.append(drawn, np.full(last_found.size, design.last, dtype=np.int64)),
        np.append(found, last_found),
        np.append(np.full(found.size, design.n_rows, dtype=np.int64), last_end),
        np.append(weight, last_weight),
    )


def _accepted_early(design: Design) -> tuple[IntArray, IntArray]:
    """Look and count of errors of each early acceptance, in the order of the looks."""
    bounds = design.bounds[:-1]
    if bounds.size == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    # a count accepted at one look cannot reach the next: only counts above its bound go on
    news = np.diff(np.append(-1, bounds))
    return np.repeat(design.looks[:-1], news), np.arange(int(bounds[-1]) + 1, dtype=np.int64)


def _survival(
    drawn: int, found: IntArray, earlier: IntArray, accepted: IntArray, weight: FloatArray
) -> FloatArray:
    """Chance that no earlier look has stopped, given `found` errors among `drawn`; like found."""
    out = np.ones(found.size)
    for start in range(0, found.size, CHUNK):
        some = found[start : start + CHUNK]
        # acceptances eight deviations below what the fewest errors imply are left out; the
        # weights only grow by it
        part = earlier / drawn
        gap = some[0] * part - accepted
        near = (gap < 8 * np.sqrt(some[0] * part * (1 - part) + 1)) & (accepted <= some[-1])
        near &= weight > 0
        if near.any():
            inside = pmf(drawn, some[:, None], earlier[near], accepted[near])
            out[start : start + CHUNK] -= inside @ weight[near]
    return np.clip(out, 0.0, 1.0)


def chances(ends: Endings, n_rows: int, errors: IntArray) -> FloatArray:
    """Probability of each ending on tables with so many errors; shape (errors, endings)."""
    return pmf(n_rows, np.asarray(errors)[:, None], ends.drawn, ends.found) * ends.weight


def risk(design: Design, errors: IntArray, ends: Endings | None = None) -> FloatArray:
    """Probability that a design frees rows with more than the tolerated errors.

    Args:
        design: the design.
        errors: errors D in its rows; shape (k,).
        ends: `endings(design)` if known.

    Returns:
        The probabilities, shape (k,). They are exact but for rounding and for endings that are
        next to impossible, for which something is added: at most `TINY` for each and
        `OUT_OF_REACH` for all the rest.
    """
    ends = endings(design) if ends is None else ends
    errors = np.asarray(errors, dtype=np.int64)
    out = np.zeros(errors.size)
    rows = max(1, MAX_CELLS // max(1, ends.found.size))
    for start in range(0, errors.size, rows):
        some = errors[start : start + rows]
        out[start : start + rows] = _risk(design, some, ends)
    return out


def _risk(design: Design, errors: IntArray, ends: Endings) -> FloatArray:
    """`risk` for few tables."""
    some, ending = _within_reach(design.n_rows, errors, ends)
    drawn, found = ends.drawn[ending], ends.found[ending]
    chance = pmf(design.n_rows, errors[some], drawn, found) * ends.weight[ending]
    left = errors[some] - found
    block = ends.end[ending] - drawn
    wrong = (left > design.tolerated) & (block > design.tolerated)
    share = wrong.astype(np.float64)
    part = wrong & (ends.end[ending] < design.n_rows) & (chance > TINY)
    share[part] = more_than(design.n_rows - design.last, left[part], block[part], design.tolerated)
    return np.asarray(np.bincount(some, chance * share, errors.size) + OUT_OF_REACH)


def _within_reach(n_rows: int, errors: IntArray, ends: Endings) -> tuple[IntArray, IntArray]:
    """Pairs of a table and an ending that is not all but impossible there: two flat arrays."""
    rate = errors[:, None] / n_rows
    mean = rate * ends.drawn
    variance = mean * (1 - rate) * (n_rows - ends.drawn) / max(1, n_rows - 1)
    gap = np.abs(ends.found - mean)
    # Bernstein's inequality bounds what is left out, see OUT_OF_REACH
    some, ending = np.nonzero(gap * gap <= REACH * (variance + gap / 3))
    return some.astype(np.int64), ending.astype(np.int64)
