from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from smartsql.stats.betting import Bets, Urn, growth, settle, tilt_for, tilted


@pytest.mark.parametrize("k", [0.0, 1e-9, 0.3, 1.0, 1.0000001, 7.0, 1e6])
def test_the_tilted_rate_solves_its_equation(k: float) -> None:
    p = np.array([0.004, 0.05, 0.5, 0.9, 0.98])
    p0 = tilted(p, np.full(p.size, k))
    assert (p0 >= p * (1 - 1e-12)).all() and (p0 <= 1).all()
    # multiplied out, so that rates near 1 lose no digits
    left = (1 - p) * p0 - p * (1 - p0)
    np.testing.assert_allclose(left, k * p0 * (1 - p0), rtol=1e-6, atol=1e-9)


def test_the_tilt_brings_the_rates_to_the_hypothesis() -> None:
    p = np.array([[0.01, 0.1, 0.3], [0.01, 0.1, 0.3]])
    mass = np.array([[50.0, 30.0, 20.0], [50.0, 30.0, 20.0]])
    pull = np.full(p.shape, 2.0)
    tilt = tilt_for(p, pull, mass, np.array([25.0, 5.0]))
    total = (mass * tilted(p, tilt[:, None] * pull)).sum(axis=1)
    assert total[0] == pytest.approx(25.0, rel=1e-4)
    assert tilt[1] == 0.0  # the prediction already has more than 5


@pytest.mark.parametrize("aim", [2.0, 3.5, 6.0])
@pytest.mark.parametrize("stake", [0.3, 1.0])
def test_one_draw_is_a_fair_bet_against_every_total_wherever_the_errors_are(
    aim: float, stake: float
) -> None:
    p = np.array([0.05, 0.2, 0.4])
    weights = np.array([0.5, 1.0, 3.0])
    bins = np.array([0, 0, 1, 1, 2, 0])
    masses = np.array([1.0, 3.0, 1.0, 2.0, 1.0, 1.0])
    urn = Urn(p, weights, np.bincount(bins, masses))
    chance = weights[bins] * masses / urn.weight
    for size in range(6):
        for places in combinations(range(6), size):
            wrong = np.isin(np.arange(6), places)
            total = float(masses[wrong].sum())
            expected = 0.0
            for item in range(6):
                bet = settle(
                    urn,
                    bins[[item]],
                    masses[[item]],
                    wrong[[item]],
                    found=0.0,
                    aim=aim,
                    stake=stake,
                    tested=1.0,
                )
                factor = bet.factors[0] + bet.slopes[0] * (total - bet.totals[0])
                expected += chance[item] * float(factor)
            assert expected == pytest.approx(1.0, abs=1e-9)


def test_a_series_of_draws_is_a_martingale_over_all_its_orders() -> None:
    # every sequence of three draws without replacement, settled with one tilt set before the first
    p, weights = np.array([0.1, 0.35]), np.array([1.0, 2.5])
    bins, masses = np.array([0, 0, 0, 1, 1]), np.array([1.0, 2.0, 1.0, 1.0, 1.0])
    wrong = np.array([False, True, False, True, False])
    found = 4.0
    total = found + float(masses[wrong].sum())
    urn = Urn(p, weights, np.bincount(bins, masses))
    each = weights[bins] * masses
    value = 0.0
    for first in range(5):
        for second in set(range(5)) - {first}:
            for third in set(range(5)) - {first, second}:
                drawn = np.array([first, second, third])
                left = urn.weight - np.concatenate([[0.0], np.cumsum(each[drawn])[:-1]])
                bets = settle(
                    urn,
                    bins[drawn],
                    masses[drawn],
                    wrong[drawn],
                    found=found,
                    aim=total,
                    stake=0.8,
                    tested=total - 1,
                )
                value += float(np.prod(each[drawn] / left)) * np.exp(bets.log_evidence(total))
    assert value == pytest.approx(1.0, abs=1e-9)


def test_no_draw_loses_all_at_the_total_that_is_tested() -> None:
    urn = Urn(np.array([0.004, 0.9]), np.array([0.01, 5.0]), np.array([900.0, 100.0]))
    for bin_ in (0, 1):
        for wrong in (False, True):
            bets = settle(
                urn,
                np.array([bin_]),
                np.ones(1),
                np.array([wrong]),
                found=3.0,
                aim=300.0,
                stake=1.0,
                tested=10.0,
            )
            assert bets.log_evidence(10.0) >= np.log(0.02) - 1e-9


def test_evidence_grows_with_the_total_and_a_lost_bet_stays_lost() -> None:
    bets = Bets(np.array([1.1, 0.4]), np.array([0.01, 0.02]), np.array([20.0, 20.0]))
    logs = bets.log_evidence(np.array([20.0, 21.0, 30.0]))
    assert (np.diff(logs) > 0).all()
    assert logs[0] == pytest.approx(np.log(1.1 * 0.4))
    assert bets.log_evidence(0.0) == -np.inf
    assert bets.joined(Bets.none()).size == 2


def test_nothing_is_bet_where_the_prediction_is_no_better_than_the_hypothesis() -> None:
    urn = Urn(np.array([0.3]), np.ones(1), np.array([100.0]))
    bets = settle(
        urn,
        np.zeros(4, dtype=np.int64),
        np.ones(4),
        np.array([True, False, True, False]),
        found=0.0,
        aim=20.0,
        stake=1.0,
        tested=20.0,
    )
    assert bets.log_evidence(20.0) == 0.0
    assert growth(np.array([0.3]), np.array([0.3]))[0] == 0.0


@pytest.mark.parametrize("excess", [0, 3])
def test_proof_of_too_many_errors_is_rare(excess: int) -> None:
    rng = np.random.default_rng(3)
    rows, tolerated, alpha, runs = 300, 20, 0.2, 600
    errors = tolerated + 1 + excess
    broken = 0
    for _ in range(runs):
        wrong = np.zeros(rows, dtype=bool)
        wrong[rng.choice(rows, errors, replace=False)] = True
        p, weights = np.array([0.02, 0.06]), np.array([0.2, 0.4])
        bins = (np.arange(rows) >= rows // 2).astype(np.int64)
        clocks = rng.standard_exponential(rows) / weights[bins]
        order = np.argsort(clocks)
        bets, found, left = Bets.none(), 0, np.ones(rows, dtype=bool)
        for start in range(0, 240, 6):
            some = order[start : start + 6]
            urn = Urn(p, weights, np.bincount(bins[left], minlength=2).astype(float))
            bets = bets.joined(
                settle(
                    urn,
                    bins[some],
                    np.ones(some.size),
                    wrong[some],
                    found=float(found),
                    aim=tolerated + 1.0 + found,
                    stake=1.0,
                    tested=tolerated + 1.0 + found,
                )
            )
            left[some] = False
            found += int(wrong[some].sum())
            if bets.log_evidence(tolerated + 1 + found) >= -np.log(alpha):
                broken += errors - found > tolerated
                break
    assert broken / runs <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / runs)
    if excess == 0:
        assert broken > 0  # the level is used, so the test can fail
