"""SMART as published: compared with a literal row-by-row version, and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.stats import beta, binom, norm

from smartsql.errors import ParameterError
from smartsql.executor import Outcome, run
from smartsql.policies.smart import Procedure, Smart
from smartsql.policies.smart_arithmetic import (
    cheapest_pair,
    least_count,
    split,
    success,
    thresholds,
)
from smartsql.replay.recording import RecordedSource, Recording
from smartsql.types import FAILED, Requirement

PROCEDURES: tuple[Procedure, ...] = ("profile-all", "profile-smart", "model-mix")


def outcome(recording: Recording, procedure: Procedure, delta: float) -> Outcome:
    problem = recording.problem(Requirement(delta, 0.95), seed=0, stored_order=True)
    smart = Smart(procedure, recording.prompt_prices)
    return run(smart, problem, RecordedSource(recording))


def spend(result: Outcome) -> float:
    models = result.profile.problem.models
    return sum(float(result.profile.costs(model.name).sum()) for model in models)


def agreeing(n: int, shares: dict[str, float], costs: dict[str, float], seed: int) -> Recording:
    """A recording in which each model agrees with "r" on a random share of the rows."""
    random = np.random.default_rng(seed)
    codes = {"r": np.zeros(n, dtype=int)}
    codes |= {m: (random.random(n) >= share).astype(int) for m, share in shares.items()}
    return Recording.of(codes, {"r": 1.0, **costs})


class Literal:
    """SMART row by row with the library's intervals, integrals and linear programs."""

    def __init__(self, recording: Recording, delta: float, gamma: float = 0.95) -> None:
        self.delta, self.gamma = delta, gamma
        self.models = sorted(recording.models[1:], key=lambda m: recording.mean_costs[m])
        self.right = {m: recording.agrees(m) for m in recording.models}
        self.costs = {m: recording.costs[m] for m in recording.models}
        self.n_rows = recording.n_rows

    def interval(self, s: int, n: int, confidence: float) -> tuple[float, float]:
        tail = (1 - confidence) / 2
        low = beta.ppf(tail, s, n - s + 1) if s > 0 else 0.0
        high = beta.ppf(1 - tail, s + 1, n - s) if s < n else 1.0
        return float(low), float(high)

    def open_models(self) -> list[str]:
        names = [*self.models, "r"]
        first = next(m for m in names if self.status[m] == "satisfied")
        return [m for m in names[: names.index(first)] if self.status[m] == "open"]

    def profile(self, prunes: bool) -> None:
        self.status = dict.fromkeys(self.models, "open") | {"r": "satisfied"}
        self.agreed = dict.fromkeys(self.models, 0)
        self.asked = dict.fromkeys([*self.models, "r"], 0)
        self.spent = dict.fromkeys([*self.models, "r"], 0.0)
        for row in range(self.n_rows):
            asked = self.open_models()
            for m in [*asked, "r"]:
                self.asked[m] += 1
                self.spent[m] += self.costs[m][row]
            for m in asked:
                self.agreed[m] += int(self.right[m][row])
            self.n = n = row + 1
            if n % 10:
                continue
            for m in asked:
                low, high = self.interval(self.agreed[m], n, self.gamma)
                if high < 1 - self.delta:
                    self.status[m] = "invalid"
                elif low >= 1 - self.delta:
                    self.status[m] = "satisfied"
            if prunes and n >= 100 and n < self.n_rows and self.open_models():
                self.prune()
            if not self.open_models():
                return

    def prune(self) -> None:
        models, rest = self.open_models(), self.n_rows - self.n
        unit = {m: self.spent[m] / self.n for m in self.spent}
        best = next(m for m in [*self.models, "r"] if self.status[m] == "satisfied")
        least, k = np.inf, 1
        while k < rest:
            left, apply = 1.0, 0.0
            for m in models:
                p = self.chance(self.agreed[m], k)
                apply += left * p * unit[m]
                left *= 1 - p
            cost = k * (unit["r"] + sum(unit[m] for m in models))
            cost += (rest - k) * (apply + left * unit[best])
            least = min(least, cost)  # stays as it is when the cost is not a number
            k *= 2
        if least >= rest * unit[best]:
            self.status |= dict.fromkeys(models, "invalid")

    def chance(self, s: int, k: int) -> float:
        n = self.n
        low, high = s, n + k
        while low < high:
            middle = (low + high) // 2
            if self.interval(middle, n + k, self.gamma)[0] < 1 - self.delta:
                low = middle + 1
            else:
                high = middle
        sigma = (s / n * (1 - s / n) / n) ** 0.5
        if sigma == 0.0:
            return float("nan")
        tail = low - s - 1
        return float(
            norm.expect(lambda x: binom.sf(tail, k, x), loc=s / n, scale=sigma, lb=0, ub=1)
        )

    def mixed_cost(self) -> float:
        n, total = self.n, self.n_rows
        target = (1 - self.delta - n / total) * total / (total - n)
        choices = []
        for m in self.models:
            levels = np.linspace(self.gamma, 1.0, 5, endpoint=False)
            ends = [self.interval(self.agreed[m], self.asked[m], c)[0] for c in levels]
            choices.append([*zip(levels, ends, strict=True), (1.0, 0.0)])
        costs = [self.spent[m] / n for m in [*self.models, "r"]]
        best = float("inf")
        for combination in itertools.product(*choices, [(1.0, 1.0)]):
            confidences, accuracies = zip(*combination, strict=True)
            if np.prod(confidences) >= self.gamma:
                solved = linprog(
                    costs, [-np.array(accuracies)], [-target], [np.ones(len(costs))], [1.0]
                )
                if solved.success and solved.fun is not None:
                    best = min(best, solved.fun)
        return best


CASES = [
    (400, {"a": 0.93, "b": 0.97}, {"a": 0.03, "b": 0.2}, 0.1, 0),
    (403, {"a": 0.5, "b": 0.9}, {"a": 0.01, "b": 0.1}, 0.1, 2),
    (600, {"a": 0.88, "b": 0.93}, {"a": 0.03, "b": 0.1}, 0.1, 1),
    (500, {"a": 0.95, "b": 0.97}, {"a": 0.1, "b": 0.3}, 0.05, 5),
    (900, {"c": 0.5, "a": 0.9, "b": 0.91}, {"c": 0.01, "a": 0.03, "b": 0.1}, 0.1, 0),
    (300, {"a": 1.0, "b": 0.9}, {"a": 0.03, "b": 0.1}, 0.02, 4),
]


@pytest.mark.parametrize(("n", "shares", "costs", "delta", "seed"), CASES)
@pytest.mark.parametrize("procedure", ["profile-all", "profile-smart"])
def test_profiling_asks_what_a_row_by_row_reading_asks(
    n: int,
    shares: dict[str, float],
    costs: dict[str, float],
    delta: float,
    seed: int,
    procedure: Procedure,
) -> None:
    recording = agreeing(n, shares, costs, seed)
    literal = Literal(recording, delta)
    literal.profile(prunes=procedure != "profile-all")
    certificate = outcome(recording, procedure, delta).plan.certificate
    assert certificate["profiled_rows"] == literal.n
    assert certificate["agreed"] == literal.agreed
    assert certificate["asked"] == {m: literal.asked[m] for m in literal.models}
    assert certificate["status"] == {m: literal.status[m] for m in literal.models}


@pytest.mark.parametrize("seed", range(3))
def test_mixture_costs_what_the_full_enumeration_of_linear_programs_costs(seed: int) -> None:
    shares = {"a": 0.4, "b": 0.85, "c": 0.95}
    recording = agreeing(600, shares, {"a": 0.02, "b": 0.05, "c": 0.3}, seed)
    literal = Literal(recording, 0.06)
    literal.profile(prunes=True)
    blocks = outcome(recording, "model-mix", 0.06).plan.certificate["blocks"]
    rest = 600 - literal.n
    assert sum(blocks.values()) == rest
    planned = sum(blocks[m] * literal.spent[m] / literal.n for m in blocks)
    assert planned == pytest.approx(rest * literal.mixed_cost(), abs=1.0)  # whole rows


@pytest.mark.parametrize(
    ("procedure", "cost"),
    [
        # 0.98 ** 183 is the first below 0.025: 190 rows of both models, the rest of the cheap one
        ("profile-all", (190 * 31 + 2810) / (3000 * 30)),
        # no error in 100 rows: the expected cost is not a number and the model is thrown away
        ("profile-smart", (100 * 31 + 2900 * 30) / (3000 * 30)),
        # 0.025 ** (1 / 100) of the rest is surely right, 0.98 of all rows must be: 1,657 rows
        ("model-mix", (100 * 31 + 1657 + 1243 * 30) / (3000 * 30)),
    ],
)
def test_perfect_model_is_thrown_away_by_early_termination(
    procedure: Procedure, cost: float
) -> None:
    recording = Recording.of({"r": np.ones(3000), "m": np.ones(3000)}, {"r": 30.0, "m": 1.0})
    assert spend(outcome(recording, procedure, 0.02)) / (3000 * 30) == pytest.approx(cost)


def test_profiled_rows_keep_the_reference_and_the_rest_is_contiguous_cheapest_first() -> None:
    recording = agreeing(2000, {"a": 0.9, "b": 0.5}, {"a": 0.1, "b": 0.05}, seed=7)
    result = outcome(recording, "model-mix", 0.04)
    n = result.plan.certificate["profiled_rows"]
    blocks = result.plan.certificate["blocks"]
    assert list(blocks) == ["b", "a", "r"]
    expected = [0] * n + [2] * blocks["b"] + [1] * blocks["a"] + [0] * blocks["r"]
    assert 0 < blocks["a"] + blocks["b"] < 2000 - n
    assert result.answered_by.tolist() == expected


def test_failed_answers_count_as_disagreement_and_stay() -> None:
    failing = np.where(np.arange(1000) % 20 == 19, FAILED, 1)
    recording = Recording.of({"r": np.ones(1000), "m": failing}, {"r": 1.0, "m": 0.1})
    result = outcome(recording, "profile-all", 0.2)
    n = result.plan.certificate["profiled_rows"]
    assert result.plan.certificate["agreed"] == {"m": n - n // 20}
    assert not result.plan.escalates_failures
    assert (result.answered_by[n:] == 1).all()


def test_models_at_or_above_the_price_of_the_reference_are_never_asked() -> None:
    codes = {name: np.ones(500) for name in ("r", "same", "dear", "cheap")}
    costs = {"r": 1.0, "same": 1.0, "dear": 2.0, "cheap": 0.5}
    result = outcome(Recording.of(codes, costs), "model-mix", 0.1)
    assert result.profile.n_asked("same") == result.profile.n_asked("dear") == 0
    assert result.profile.n_asked("cheap") == 500


def test_prompt_prices_alone_decide_which_model_is_preferred() -> None:
    codes = {name: np.ones(500) for name in ("r", "wordy", "terse")}
    costs = {"r": 1.0, "wordy": 0.5, "terse": 0.1}
    prices = {"r": 3.0, "wordy": 1.0, "terse": 2.0}
    result = outcome(Recording.of(codes, costs, prompt_prices=prices), "profile-all", 0.1)
    assert (result.answered_by[result.plan.audited_rows :] == 1).all()


def test_unit_costs_are_divided_by_all_profiled_rows() -> None:
    """A model that left after 10 of 100 rows looks ten times cheaper than it is."""
    nearly = np.where(np.arange(2000) % 10 == 0, 0, 1)
    recording = Recording.of(
        {"r": np.ones(2000), "bad": np.zeros(2000), "nearly": nearly},
        {"r": 1.0, "bad": 0.9, "nearly": 0.95},
    )
    certificate = outcome(recording, "model-mix", 0.1).plan.certificate
    assert certificate["asked"] == {"bad": 10, "nearly": 100}
    # an error of "bad" saves 0.1 and is thought to save 0.91; one of "nearly" saves 0.28 at least
    assert certificate["blocks"]["bad"] > 0
    assert certificate["blocks"]["nearly"] == 0


def test_repeated_prompts_are_read_as_rows_and_paid_once() -> None:
    codes = {"r": np.ones(50), "m": np.ones(50)}
    recording = Recording.of(codes, {"r": 1.0, "m": 0.1}, weights=np.full(50, 20))
    result = outcome(recording, "profile-all", 0.1)
    n = result.plan.audited_rows
    # 40 rows of the stored order are two prompts; 0.9 ** 40 is the first look below 0.025
    assert n == 40
    assert result.profile.n_asked("r") == 2
    assert result.answered_by.tolist() == [0, 0] + [1] * 48


def test_nothing_to_choose_from_is_the_reference() -> None:
    recording = Recording.of({"r": np.ones(25)}, {"r": 1.0})
    for procedure in PROCEDURES:
        result = outcome(recording, procedure, 0.1)
        assert not result.answered_by.any()
        assert result.plan.bound == 0.0
        assert spend(result) == 25.0


@pytest.mark.parametrize("delta", [0.0, 0.3, 0.97])
@pytest.mark.parametrize("n", [1, 9, 10, 11, 101])
@pytest.mark.parametrize("procedure", PROCEDURES)
def test_small_tables_and_odd_tolerances_are_answered_whole(
    n: int, delta: float, procedure: Procedure
) -> None:
    recording = agreeing(n, {"a": 0.7, "b": 1.0}, {"a": 0.0, "b": 0.5}, seed=n)
    result = outcome(recording, procedure, delta)
    assert result.answered_by.size == n
    if delta == 0.0:
        assert not result.answered_by.any()


def test_procedures_have_their_published_names() -> None:
    assert [Smart(p).name for p in PROCEDURES] == [f"smart-{p}" for p in PROCEDURES]
    with pytest.raises(ParameterError, match="profile-all, profile-smart, model-mix"):
        Smart("exhaustive")  # type: ignore[arg-type]


@pytest.mark.parametrize("delta", [0.0, 0.02, 0.1, 0.5])
@pytest.mark.parametrize("gamma", [0.8, 0.95])
def test_whole_number_looks_are_the_clopper_pearson_comparisons(delta: float, gamma: float) -> None:
    limits = thresholds(200, delta, gamma)
    tail = (1 - gamma) / 2
    for n in (1, 10, 37, 100, 200):
        s = np.arange(n + 1)
        low = np.where(s > 0, beta.ppf(tail, np.maximum(s, 1), n - s + 1), 0.0)
        high = np.where(s < n, beta.ppf(1 - tail, s + 1, np.maximum(n - s, 1)), 1.0)
        assert ((s >= limits.satisfied[n]) == (low >= 1 - delta)).all()
        assert ((s <= limits.invalid[n]) == (high < 1 - delta)).all()


def test_limits_never_fall_so_that_the_next_possible_change_can_be_searched() -> None:
    limits = thresholds(3000, 0.07, 0.95)
    assert (np.diff(limits.spared) >= 0).all()
    assert (np.diff(limits.invalid) >= 0).all()


@pytest.mark.parametrize("rate", [0.0, 0.03, 0.5, 0.98, 1.0])
def test_least_count_is_the_first_with_a_small_tail(rate: float) -> None:
    n = np.arange(120)
    for size, count in zip(n, least_count(n, rate, 0.025), strict=True):
        assert binom.sf(count - 1, size, rate) <= 0.025
        assert binom.sf(count - 2, size, rate) > 0.025


def test_chance_of_success_is_the_published_integral() -> None:
    ks = np.array([1, 2, 16, 256, 4096, 65536])
    for n, agreed in ((100, 99), (100, 52), (500, 470), (4000, 3600), (20000, 19985)):
        rate, sigma = agreed / n, (agreed / n * (1 - agreed / n) / n) ** 0.5
        for shift in (-2.0, 0.0, 1.5):
            needed = np.ceil(ks * (rate + shift * sigma)).astype(int)
            found = success(np.array([rate]), n, ks, needed[None, :])[0]
            for k, t, p in zip(ks, needed, found, strict=True):
                points = np.linspace(max(0.0, rate - 9 * sigma), min(1.0, rate + 9 * sigma), 200001)
                values = norm.pdf(points, rate, sigma) * binom.sf(t - 1, k, points)
                assert p == pytest.approx(np.trapezoid(values, points), abs=2e-5)


def test_pairs_are_the_vertices_of_the_linear_program() -> None:
    random = np.random.default_rng(5)
    for _ in range(50):
        accuracy = np.append(random.random(5), 1.0)
        cost = random.random(6)
        target = random.random()
        i, j, share = cheapest_pair(accuracy, cost, target, np.ones((6, 6), dtype=bool))
        solved = linprog(cost, [-accuracy], [-target], [np.ones(6)], [1.0])
        assert share * cost[i] + (1 - share) * cost[j] == pytest.approx(solved.fun)
        assert share * accuracy[i] + (1 - share) * accuracy[j] >= target - 1e-9


def test_split_gives_away_every_row() -> None:
    assert split(10, np.array([0.25, 0.0, 0.75])).tolist() == [2, 0, 8]
    assert split(7, np.array([1.0, 0.0])).tolist() == [7, 0]
    assert split(0, np.array([0.5, 0.5])).tolist() == [0, 0]
    assert split(100, np.array([1 / 3, 1 / 3, 1 / 3])).tolist() == [33, 34, 33]
