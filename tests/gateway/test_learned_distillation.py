"""How a learned model is fitted: two stages, calibration, and honesty about its own lesson."""

from __future__ import annotations

import random

import numpy as np
import pytest

from smartsql.gateway import Hint

pytest.importorskip("sklearn")

from smartsql.gateway.classifier import ridge, shares, temperature
from smartsql.gateway.distillation import Lesson, Taught, earned_trust, trained, without_unseen
from smartsql.gateway.learned_features import Featured
from smartsql.gateway.learned_parameters import LearnedParameters, distilled

LETTERS = random.Random(0)
WORDS = {
    mood: ["".join(LETTERS.choices("abcdefghij", k=8)) for _ in range(150)]
    for mood in ("positive", "negative")
}
"""Words that have no letters in common which would tell their mood."""
FEATURES = Featured(16)
PARAMETERS = LearnedParameters(hash_bits=16)


def sample(n: int, seed: int) -> tuple[list[str], list[str]]:
    """Texts of three words of a mood, each word one of many: few labels show few words."""
    rng = random.Random(seed)
    said = [rng.choice(["positive", "negative"]) for _ in range(n)]
    texts = [" ".join([*rng.sample(WORDS[a], 3), f"n{seed}x{i}"]) for i, a in enumerate(said)]
    return texts, said


def hints(texts: list[str], said: list[str], seed: int, right: float = 0.8) -> list[Hint]:
    """A cheap model that is right oftener when it is sure."""
    rng = random.Random(seed)
    found = []
    for text, answer in zip(texts, said, strict=True):
        sure = rng.random()
        is_right = rng.random() < right - 0.2 + 0.4 * sure
        other = {"positive": "negative", "negative": "positive"}[answer]
        found.append(Hint(text, answer if is_right else other, sure))
    return found


def right(taught: Taught, texts: list[str], said: list[str]) -> float:
    answers, _ = taught.answered(texts, FEATURES, ())
    return float(np.mean([a == b for a, b in zip(answers, said, strict=True)]))


def fitted(lesson: Lesson) -> Taught:
    return trained(lesson, PARAMETERS, None, FEATURES)


def test_a_cheap_model_teaches_what_few_labels_do_not() -> None:
    texts, said = sample(20, seed=1)
    pool, truth = sample(400, seed=2)
    fresh, expected = sample(300, seed=3)
    alone = right(fitted(Lesson.of(texts, said)), fresh, expected)
    helped = fitted(Lesson.of(texts, said, hints(pool, truth, seed=4)))
    assert right(helped, fresh, expected) > alone + 0.1
    # and on the very texts it does better than its teacher
    taught_by = np.mean(
        [hint.answer == t for hint, t in zip(hints(pool, truth, 4), truth, strict=True)]
    )
    assert right(helped, pool, truth) > taught_by + 0.05


def test_a_cheap_model_that_is_always_wrong_is_not_believed() -> None:
    texts, said = sample(60, seed=5)
    pool, truth = sample(400, seed=6)
    fresh, expected = sample(300, seed=7)
    inverted = [
        Hint(h.input, {"positive": "negative", "negative": "positive"}[h.answer], h.confidence)
        for h in hints([*texts, *pool], [*said, *truth], seed=8, right=0.9)
    ]
    alone = right(fitted(Lesson.of(texts, said)), fresh, expected)
    assert right(fitted(Lesson.of(texts, said, inverted)), fresh, expected) > alone - 0.05


def test_about_a_text_of_its_lesson_it_answers_as_if_it_had_not_been_taught_it() -> None:
    rng = random.Random(9)
    texts = [" ".join(f"w{rng.randrange(400)}" for _ in range(6)) for _ in range(200)]
    coins = [rng.choice(["heads", "tails"]) for _ in texts]  # nothing to learn but by heart
    taught = fitted(Lesson.of(texts, coins))
    by_heart = taught.whole.answered(FEATURES(texts))[0]
    assert np.mean([a == b for a, b in zip(by_heart, coins, strict=True)]) > 0.95
    assert 0.35 < right(taught, texts, coins) < 0.65


def test_nor_does_a_hint_tell_it() -> None:
    rng = random.Random(10)
    texts = [" ".join(f"w{rng.randrange(400)}" for _ in range(6)) for _ in range(200)]
    coins = [rng.choice(["heads", "tails"]) for _ in texts]
    guesses = [Hint(text, rng.choice(["heads", "tails"]), 0.9) for text in texts]
    taught = fitted(Lesson.of(texts, coins, guesses))
    assert 0.35 < right(taught, texts, coins) < 0.65


def test_trust_in_a_cheap_model_follows_the_labels() -> None:
    confidences = np.linspace(0.0, 1.0, 200)
    none = np.zeros(200, dtype=np.bool_)
    before = earned_trust(confidences, none, none)
    assert 0.6 < before.mean() < 0.75
    assert (np.diff(before) > 0).all()
    every = ~none
    informed = earned_trust(confidences, every, confidences > 0.5)
    assert informed[:60].max() < 0.3
    assert informed[-60:].min() > 0.7
    unknown = earned_trust(np.full(200, np.nan), every, np.arange(200) % 10 > 0)
    assert np.ptp(unknown) < 1e-12
    assert unknown[0] == pytest.approx(0.9, abs=0.02)


def test_held_out_probabilities_are_tempered_where_the_fit_is_too_sure() -> None:
    texts, said = sample(300, seed=11)
    rng = random.Random(12)
    noisy = [a if rng.random() < 0.7 else rng.choice(["positive", "negative"]) for a in said]
    greedy = LearnedParameters(strength=300.0, hash_bits=16)
    taught = trained(Lesson.of(texts, noisy), greedy, None, FEATURES)
    assert taught.whole.temperature > 1.3
    fresh, expected = sample(500, seed=13)
    answers, sure = taught.answered(fresh, FEATURES, ())
    agrees = [
        a == (b if rng.random() < 0.7 else rng.choice(["positive", "negative"]))
        for a, b in zip(answers, expected, strict=True)
    ]
    assert abs(np.mean(sure) - np.mean(agrees)) < 0.12


def test_the_temperature_of_known_margins_is_found() -> None:
    rng = np.random.default_rng(14)
    z = rng.normal(0, 1.5, 4000)
    codes = (rng.random(4000) < 1 / (1 + np.exp(-z))).astype(np.int64)
    margins = np.column_stack([-z, z])
    assert temperature(margins, codes) == pytest.approx(1.0, abs=0.12)
    assert temperature(3 * margins, codes) == pytest.approx(3.0, abs=0.4)


def test_answers_seen_once_stand_for_answers_never_seen() -> None:
    texts = [f"common {i}" for i in range(20)] + [f"rare{i} thing{i}" for i in range(5)]
    said = ["usual"] * 10 + ["other"] * 10 + [f"odd {i}" for i in range(5)]
    whole = fitted(Lesson.of(texts, said)).whole
    assert whole.unseen == pytest.approx(5 / 26)
    _, sure = whole.answered(FEATURES(texts))
    assert max(sure) <= 1 - 5 / 26
    assert without_unseen(whole, tuple(set(said))).unseen == 0.0
    assert without_unseen(whole, ("usual", "new")).unseen == whole.unseen


def test_shares_add_up_and_the_ridge_is_where_its_gradient_vanishes() -> None:
    rng = np.random.default_rng(15)
    assert shares(rng.normal(0, 20, (50, 4))).sum(axis=1) == pytest.approx(1.0)
    x, y = rng.normal(size=(60, 5)), rng.random(60) < 0.4
    weights, offsets = rng.random(60) * 5, rng.normal(size=60)
    w = ridge(x, y, weights, offsets)
    p = 1 / (1 + np.exp(-(x @ w + offsets)))
    assert x.T @ (weights * (p - y)) + w == pytest.approx(0.0, abs=0.2)
    assert ridge(x[:0], y[:0], weights[:0], offsets[:0]) == pytest.approx(0.0)


def test_what_is_distilled_is_read_from_the_identity_alone() -> None:
    assert distilled(LearnedParameters(distils="small").identity() + " in 00ff from 12") == "small"
    assert distilled(LearnedParameters().identity()) is None
    assert distilled("llama:gemma") is None
