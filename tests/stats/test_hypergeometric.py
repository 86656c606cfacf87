"""Probabilities of draws without replacement, against counting with whole numbers."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartsql.stats.hypergeometric import at_most, log_factorials, more_than, pmf


def exact(population: int, errors: int, drawn: int, found: int) -> Fraction:
    """P(exactly `found`) as a fraction."""
    if not 0 <= found <= min(errors, drawn) or drawn - found > population - errors:
        return Fraction(0)
    ways = comb(errors, found) * comb(population - errors, drawn - found)
    return Fraction(ways, comb(population, drawn))


@st.composite
def draws(draw: st.DrawFn) -> tuple[int, int, int, int]:
    population = draw(st.integers(1, 300))
    errors = draw(st.integers(0, population))
    drawn = draw(st.integers(0, population))
    return population, errors, drawn, draw(st.integers(-1, population + 1))


@given(draws())
def test_mass_and_both_tails_equal_exact_counting(case: tuple[int, int, int, int]) -> None:
    population, errors, drawn, found = case
    below = sum((exact(population, errors, drawn, x) for x in range(found + 1)), Fraction(0))
    assert float(pmf(*case)) == pytest.approx(float(exact(*case)), rel=1e-10, abs=1e-300)
    assert float(at_most(*case)) == pytest.approx(float(below), abs=1e-11)
    assert float(more_than(*case)) == pytest.approx(float(1 - below), rel=1e-9, abs=1e-11)


def test_small_tails_keep_their_relative_precision() -> None:
    case = (2000, 300, 400, 5)
    below = sum((exact(*case[:3], x) for x in range(6)), Fraction(0))
    assert float(at_most(*case)) == pytest.approx(float(below), rel=1e-9)
    assert 0 < float(at_most(*case)) < 1e-15


def test_an_impossible_table_has_no_probability() -> None:
    assert float(at_most(10, 11, 5, 3)) == 0.0
    assert float(pmf(10, 11, 5, 3)) == 0.0


def test_arrays_broadcast() -> None:
    table = pmf(50, np.arange(51)[:, None], 20, np.arange(21))
    assert table.shape == (51, 21)
    assert table.sum(axis=1) == pytest.approx(np.ones(51))


def test_log_factorials_add_up_to_the_last_digit_that_matters() -> None:
    table = log_factorials(1_000_000)
    steps = np.diff(table[:100_001])
    assert steps == pytest.approx(np.log(np.arange(1, 100_001)), abs=1e-9)
    assert table[20] == pytest.approx(np.log(float(2432902008176640000)))
