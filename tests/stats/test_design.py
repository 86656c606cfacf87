"""The design's risk is what enumeration finds, and at most alpha whatever the table holds."""

from itertools import combinations
from math import comb

import numpy as np
import pytest

from smartsql.errors import ParameterError
from smartsql.stats.calibrate import MARGIN, calibrate, dense_grid
from smartsql.stats.design import Design, draw_up
from smartsql.stats.hypergeometric import at_most
from smartsql.stats.risk import OUT_OF_REACH, chances, endings, risk

SMALL = [
    # n_rows, tolerated, last, ramp, level
    (11, 2, 7, 0.5, 0.3),
    (12, 3, 9, 0.0, 0.25),
    (13, 1, 10, 1.0, 0.4),
    (14, 4, 8, 0.5, 0.35),
    (14, 2, 3, 0.0, 0.1),
]


def walk(design: Design, wrong: frozenset[int]) -> tuple[int, int]:
    """Audited rows and end of the freed rows when exactly the rows `wrong` are errors."""
    for look, bound in zip(design.looks[:-1], design.bounds[:-1], strict=True):
        if sum(row < look for row in wrong) <= bound:
            return int(look), design.n_rows
    return design.last, design.prefix(sum(row < design.last for row in wrong))


@pytest.mark.parametrize("case", SMALL)
def test_risk_equals_the_share_of_all_orders_that_free_too_many_errors(
    case: tuple[int, int, int, float, float],
) -> None:
    n_rows, tolerated, last, ramp, level = case
    design = draw_up(n_rows, tolerated, last, ramp, 0.5, level)
    for errors in range(n_rows + 1):
        broken = 0
        for wrong in combinations(range(n_rows), errors):
            drawn, end = walk(design, frozenset(wrong))
            broken += sum(drawn <= row < end for row in wrong) > tolerated
        expected = broken / comb(n_rows, errors)
        assert risk(design, np.array([errors]))[0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("case", SMALL)
def test_endings_have_the_probabilities_that_enumeration_finds(
    case: tuple[int, int, int, float, float],
) -> None:
    n_rows, tolerated, last, ramp, level = case
    design = draw_up(n_rows, tolerated, last, ramp, 0.5, level)
    ends = endings(design)
    for errors in (0, tolerated, n_rows // 2):
        seen = dict.fromkeys(zip(ends.drawn.tolist(), ends.found.tolist(), strict=True), 0.0)
        for wrong in combinations(range(n_rows), errors):
            drawn, _ = walk(design, frozenset(wrong))
            found = sum(row < drawn for row in wrong)
            if found <= design.cap:
                seen[drawn, found] += 1 / comb(n_rows, errors)
        assert chances(ends, n_rows, np.array([errors]))[0] == pytest.approx(list(seen.values()))


@pytest.mark.parametrize(
    "case",
    [
        (44, 5, 30, 0.5, 0.05),
        (44, 2, 40, 0.0, 0.2),
        (94, 30, 40, 1.0, 0.05),
        (190, 9, 100, 0.5, 0.05),
        (194, 20, 60, 1.0, 0.03),
        (194, 20, 120, 0.0, 0.02),
        (390, 39, 150, 0.5, 0.05),
        (400, 20, 200, 0.0, 0.01),
        (400, 160, 50, 0.5, 0.1),
        (1000, 60, 350, 0.5, 0.05),
        (1990, 99, 500, 1.0, 0.05),
    ],
)
def test_no_number_of_errors_breaks_a_calibrated_design(
    case: tuple[int, int, int, float, float],
) -> None:
    design, _ = calibrate(*case)
    everything = risk(design, np.arange(design.n_rows + 1))
    assert everything.max() <= design.alpha
    assert everything[: design.tolerated + 1].max() <= OUT_OF_REACH
    assert everything.max() > 0.5 * design.alpha  # the promise is used, not merely kept


@pytest.mark.parametrize("case", [(20000, 1000, 1500, 0.5, 0.05), (50000, 5000, 600, 0.0, 0.05)])
def test_the_dense_grid_misses_no_peak_on_a_large_table(
    case: tuple[int, int, int, float, float],
) -> None:
    design, _ = calibrate(*case)
    start = design.tolerated + 1
    stop = start + 3 * int(design.bounds[-1]) + 300
    every = risk(design, np.arange(start, stop))
    grid = dense_grid(design)
    assert every.max() <= 1.01 * risk(design, grid).max()
    assert every.max() <= design.alpha
    assert risk(design, grid).max() <= MARGIN * design.alpha


@pytest.mark.parametrize("ramp", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "size", [(20, 2, 12), (194, 20, 100), (2000, 40, 900), (5574, 445, 396), (50000, 2500, 4000)]
)
def test_looks_increase_and_prefixes_shrink_but_never_below_the_tolerated_rows(
    size: tuple[int, int, int], ramp: float
) -> None:
    n_rows, tolerated, last = size
    design, _ = calibrate(n_rows, tolerated, last, ramp, 0.05)
    assert (np.diff(design.looks) > 0).all()
    assert (np.diff(design.bounds) >= 0).all()
    ends = np.array([design.prefix(found) for found in range(last + 1)])
    assert (np.diff(ends) <= 0).all()
    assert (ends - last >= min(tolerated, n_rows - last)).all()
    assert ends.max() <= n_rows


def test_every_bound_and_prefix_is_significant_at_its_level() -> None:
    design, _ = calibrate(5574, 445, 396, 0.5, 0.05)
    n, d = design.n_rows, design.tolerated
    bounds, looks = design.bounds, design.looks
    assert (at_most(n, d + 1 + bounds, looks, bounds) <= design.level).all()
    found = np.arange(design.bounds[-1] + 1, design.cap + 1)
    levels = at_most(design.prefixes, d + 1 + found, design.last, found)
    assert levels.max() <= min(0.96 * design.alpha, 1.6 * design.level) + 1e-12


def test_a_share_of_alpha_too_small_to_use_frees_only_the_tolerated_rows() -> None:
    design, _ = calibrate(60, 3, 10, 0.5, 1e-7)
    assert design.prefix(0) == design.last + design.tolerated
    assert risk(design, np.arange(61)).max() <= 1e-7


def test_an_alpha_that_rounding_could_decide_is_refused() -> None:
    with pytest.raises(ParameterError, match="reference"):
        calibrate(60, 3, 10, 0.5, 1e-12)
