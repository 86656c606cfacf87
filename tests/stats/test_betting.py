from __future__ import annotations

from copy import deepcopy
from itertools import permutations
from zlib import crc32

import numpy as np
import pytest

from smartsql.stats.betting import Book, Draws, Urn, growth, tilt_for, tilted

ALPHA = 0.05


def urn(p: list[float], weights: list[float], mass: list[float], ahead: int = 0) -> Urn:
    bins = np.arange(len(p))
    return Urn(np.array(p), np.array(weights), np.array(mass), bins < ahead)


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


BINS = np.array([0, 0, 1, 1, 2])
MASSES = np.array([1.0, 3.0, 1.0, 2.0, 1.0])
WEIGHTS = np.array([0.5, 1.0, 3.0])
SMALL = Urn(
    np.array([0.05, 0.2, 0.4]),
    WEIGHTS,
    np.bincount(BINS, MASSES),
    np.array([True, False, False]),
)


def expected_wealth(wrong: np.ndarray, length: int, book: Book, at: int, stake: float) -> float:
    """Mean over all orders of `length` draws of what the segment `at` then holds."""
    each = WEIGHTS[BINS] * MASSES
    value = 0.0
    for order in permutations(range(BINS.size), length):
        drawn = np.array(order)
        left = SMALL.weight - np.concatenate([[0.0], np.cumsum(each[drawn])[:-1]])
        trial = Book(book.tolerated, ALPHA)
        trial.cut(book.bases)
        draws = Draws(BINS[drawn], MASSES[drawn], wrong[drawn])
        trial.settle(SMALL, draws, 2.0, stake, series=2)
        value += float(np.prod(each[drawn] / left) * np.exp(trial.logs[at]))
    return value


@pytest.mark.parametrize(("tolerated", "stake"), [(1, 1.0), (3, 0.4)])
def test_no_placement_of_the_errors_makes_evidence_grow_on_average(
    tolerated: int, stake: float
) -> None:
    book = Book(tolerated, ALPHA)
    book.cut(np.array([tolerated + 3, tolerated + 4, tolerated + 6]))
    drawn = fair = 0
    for placement in range(2**BINS.size):
        wrong = (placement >> np.arange(BINS.size)) & 1 == 1
        total = 2 + int(MASSES[wrong].sum())
        if total < book.bases[0]:
            continue
        at = int(np.searchsorted(book.bases, total, side="right")) - 1
        expected = expected_wealth(wrong, 3, book, at, stake)
        assert expected <= 1 + 1e-9
        drawn += 1
        fair += expected > 0.99
    assert drawn > 10
    assert fair > 2  # and where the total is the base, hardly anything is given away


class Auditor:
    """One that changes everything between draws, by all that it has seen; outcomes are summed.

    Attributes:
        wealth: expected evidence against the true total when its account ends.
        broken: probability that too many errors are left when the promise is proved.
    """

    def __init__(self, seed: int, tolerated: int, wrong: np.ndarray) -> None:
        self.seed, self.tolerated, self.wrong = seed, tolerated, wrong
        self.total = float(MASSES[wrong].sum())
        self.wealth = self.broken = 0.0

    def ended(self, chance: float, log: float, found: float, *, proved: bool) -> None:
        self.wealth += chance * float(np.exp(log))
        if proved and self.total - found > self.tolerated:
            self.broken += chance

    def held(self, book: Book, before: float) -> float:
        """What the account of the true total has; `before` once that is out of question."""
        if self.total < book.bases[0]:
            return before
        return float(book.logs[np.searchsorted(book.bases, self.total, side="right") - 1])

    def go(
        self,
        book: Book,
        seen: tuple[tuple[int, bool], ...],
        left: list[int],
        found: float,
        chance: float,
        log: float,
        rounds: int,
    ) -> None:
        rng = np.random.default_rng(crc32(repr((self.seed, seen)).encode()))
        if rng.random() < 0.4 and len(left) > 2:
            taken = left[int(rng.integers(len(left)))]
            left = [i for i in left if i != taken]
            found += float(MASSES[taken] * self.wrong[taken])
            seen = (*seen, (taken, bool(self.wrong[taken])))
        if rounds == 0 or book.proves(found):
            self.ended(chance, log, found, proved=book.proves(found))
            return
        count, bins = int(rng.integers(1, 4)), rng.integers(0, 3, MASSES.size)
        bins %= count
        weights = rng.uniform(0.05, 3.0, count)
        rows = np.bincount(bins[left], MASSES[left], count)
        ahead = np.arange(count) < (rng.random() < 0.4)
        now = Urn(rng.uniform(0.004, 0.98, count) ** 2, weights, rows, ahead)
        more = np.arange(1, 8)
        tested = self.tolerated + 1 + int(found)
        bases = np.append(tested, tested + more[rng.random(more.size) < 0.5])
        stake, series = float(rng.choice([0.3, 1.0])), int(rng.integers(1, 3))
        for drawn in permutations(left, min(2, len(left))):
            some = np.array(drawn)
            each = weights[bins] * MASSES
            total = each[left].sum() - np.append(0.0, np.cumsum(each[some])[:-1])
            trial = deepcopy(book)
            trial.cut(bases)
            draws = Draws(bins[some], MASSES[some], self.wrong[some])
            known = trial.settle(now, draws, found, stake, series)
            then = chance * float(np.prod(each[some] / total))
            if trial.proves(known):
                self.ended(then, self.held(trial, log), known, proved=True)
                continue
            news = tuple((i, bool(self.wrong[i])) for i in drawn)
            rest = [i for i in left if i not in drawn]
            kept = self.held(trial, log)
            self.go(trial, seen + news, rest, found + draws.wrong, then, kept, rounds - 1)


def test_no_auditor_that_adapts_everything_gains_on_average() -> None:
    fair = used = 0
    for seed in range(40):
        alpha, tolerated = (0.5, 0.3)[seed % 2], seed % 3
        wrong = np.random.default_rng(seed).random(MASSES.size) < 0.5
        auditor = Auditor(seed, tolerated, wrong)
        if auditor.total < tolerated + 1:
            continue
        auditor.go(Book(tolerated, alpha), (), list(range(MASSES.size)), 0.0, 1.0, 0.0, 2)
        assert auditor.wealth <= 1 + 1e-9
        assert auditor.broken <= alpha
        fair += auditor.wealth > 0.99
        used += auditor.broken > 0.3 * alpha
    assert fair > 3
    assert used > 0  # a proof of too many errors is possible at all, so the bound can fail


def test_evidence_does_not_outgrow_what_an_account_needs() -> None:
    book = Book(5, ALPHA)
    many = Draws(np.zeros(300, dtype=np.int64), np.ones(300), np.zeros(300, dtype=bool))
    book.settle(urn([0.01], [1.0], [600.0]), many, 0.0, 1.0, series=4)
    assert book.proves(0.0)
    assert book.evidence(0.0) == book.threshold
    assert not Book(5, ALPHA).proves(0.0)


def test_the_first_error_ends_the_account_of_the_smallest_total_and_no_other() -> None:
    book = Book(5, ALPHA)
    book.cut(np.array([6, 7, 8, 9]))
    error = Draws(np.zeros(1, dtype=np.int64), np.ones(1), np.ones(1, dtype=bool))
    book.settle(urn([0.002], [1.0], [600.0]), error, 0.0, 1.0, series=1)
    assert book.logs[0] < -5
    assert (book.logs[1:] > -5).all()


def test_no_draw_leaves_less_than_nothing() -> None:
    odd = urn([0.004, 0.9], [0.01, 5.0], [900.0, 100.0])
    for bin_ in (0, 1):
        for wrong in (False, True):
            book = Book(10, ALPHA)
            draws = Draws(np.full(3, bin_), np.ones(3), np.full(3, wrong))
            book.settle(odd, draws, 3.0, 1.0, series=3)
            assert not np.isnan(book.logs).any()


def test_nothing_is_bet_where_the_prediction_is_no_better_than_the_hypothesis() -> None:
    book = Book(20, ALPHA)
    draws = Draws(np.zeros(4, dtype=np.int64), np.ones(4), np.array([True, False, True, False]))
    book.settle(urn([0.3], [1.0], [100.0], ahead=1), draws, 0.0, 1.0, series=2)
    assert book.logs.tolist() == [0.0]
    assert growth(np.array([0.3]), np.array([0.3]))[0] == 0.0


def test_a_new_segment_has_the_least_evidence_of_all_that_it_holds() -> None:
    book = Book(9, ALPHA)
    book.cut(np.array([10, 20, 30, 40]))
    book.logs = np.array([0.5, -1.0, 2.0, 0.1])
    book.cut(np.array([12, 15, 25, 30, 35, 50]))
    assert book.logs.tolist() == [0.5, -1.0, -1.0, 2.0, 0.1, 0.1]
    assert book.evidence(3) == -1.0
    assert book.evidence(1) == -np.inf  # that total was given up


@pytest.mark.parametrize("bases", [[], [9, 12], [10, 10]])
def test_segments_that_do_not_ascend_are_refused(bases: list[int]) -> None:
    with pytest.raises(ValueError, match="must ascend"):
        Book(9, ALPHA).cut(np.array(bases, dtype=np.int64))


@pytest.mark.parametrize("excess", [3, 8])
def test_proof_of_too_many_errors_is_rare(excess: int) -> None:
    rng = np.random.default_rng(3)
    rows, tolerated, alpha, runs = 300, 20, 0.2, 120
    errors = tolerated + 1 + excess
    broken = 0
    p, weights = np.array([0.02, 0.06]), np.array([0.2, 0.4])
    bins = (np.arange(rows) >= rows // 2).astype(np.int64)
    ahead = np.zeros(2, dtype=bool)
    for _ in range(runs):
        wrong = np.zeros(rows, dtype=bool)
        wrong[rng.choice(rows, errors, replace=False)] = True
        order = np.argsort(rng.standard_exponential(rows) / weights[bins])
        book, found, left = Book(tolerated, alpha), 0.0, np.ones(rows, dtype=bool)
        for start in range(0, 240, 12):
            some = order[start : start + 12]
            book.cut(np.arange(tolerated + 1 + int(found), tolerated + 25 + int(found)))
            mass = np.bincount(bins[left], minlength=2).astype(float)
            draws = Draws(bins[some], np.ones(some.size), wrong[some])
            left[some] = False
            found = book.settle(Urn(p, weights, mass, ahead), draws, found, 1.0, series=4)
            if book.proves(found):
                broken += errors - found > tolerated
                break
    assert broken / runs <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / runs)
    if excess == 3:
        assert broken > 0  # the level is used, so the test can fail
