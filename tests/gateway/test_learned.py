from __future__ import annotations

import random
from collections.abc import Sequence
from queue import SimpleQueue
from threading import Event

import pytest

from smartsql.errors import ConfigError, MissingExtraError
from smartsql.gateway import Attempt, Attempts, Request

pytest.importorskip("sklearn")

from smartsql.gateway.learned import LearnedBackend

GOOD = ["great", "superb", "lovely", "moving", "clever"]
BAD = ["dull", "awful", "clumsy", "stale", "lifeless"]
FILLER = ["the film", "a story", "its plot", "this comedy", "the cast", "an ending", "the score"]


def sample(n: int, seed: int) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    answers = [rng.choice(["positive", "negative"]) for _ in range(n)]
    words = {"positive": GOOD, "negative": BAD}
    texts = [f"{rng.choice(FILLER)} , {rng.choice(words[a])} {rng.choice(FILLER)}" for a in answers]
    return texts, answers


def ask(backend: LearnedBackend, texts: Sequence[str]) -> list[Attempt]:
    out: Attempts = SimpleQueue()
    backend.start([Request(i, t, "") for i, t in enumerate(texts)], (), out, Event())
    found: list[Attempt] = []
    while len(found) < len(texts):
        found += out.get(timeout=30)
    assert [attempt.index for attempt in found] == list(range(len(texts)))
    assert all(attempt.final for attempt in found)
    return found


def test_it_abstains_before_any_training() -> None:
    backend = LearnedBackend("student")
    (attempt,) = ask(backend, ["anything"])
    backend.close()
    assert (attempt.status, attempt.text) == ("empty", None)
    assert attempt.error == "model 'student' abstains: it was not trained"


def test_it_learns_a_pattern_from_few_answers_and_knows_how_sure_it_is() -> None:
    backend = LearnedBackend("student")
    backend.fit(*sample(60, seed=1))
    texts, answers = sample(500, seed=2)
    attempts = ask(backend, texts)
    agreed = sum(a.text == answer for a, answer in zip(attempts, answers, strict=True))
    assert agreed >= 490
    assert all(a.confidence is not None and 0.5 <= a.confidence <= 1.0 for a in attempts)
    (unsure,) = ask(backend, ["nothing it has seen"])
    backend.close()
    assert unsure.confidence is not None
    assert unsure.confidence < 0.65
    assert all(a.seconds > 0 and a.cost_usd == 0 for a in attempts)


def test_training_is_deterministic_and_the_order_of_the_pairs_plays_no_part() -> None:
    texts, answers = sample(80, seed=3)
    shuffled = list(zip(texts, answers, strict=True))
    random.Random(0).shuffle(shuffled)
    one, other = LearnedBackend("m"), LearnedBackend("m")
    one.fit(texts, answers)
    other.fit([text for text, _ in shuffled], [answer for _, answer in shuffled])
    asked, _ = sample(100, seed=4)
    first = [(a.text, a.confidence) for a in ask(one, asked)]
    again = [(a.text, a.confidence) for a in ask(other, asked[:1]) + ask(other, asked[1:])]
    one.close()
    other.close()
    assert first == again


def test_many_answers_in_other_languages_are_told_apart() -> None:
    words = {
        "отлично": "превосходный фильм",
        "ひどい": "退屈な映画",
        "gemischt": "Größe mit Schwächen",
    }
    texts = [f"{text} {i}" for i in range(10) for text in words.values()]
    backend = LearnedBackend("m")
    backend.fit(texts, [answer for _ in range(10) for answer in words])
    attempts = ask(backend, [f"{text} 99" for text in words.values()])
    backend.close()
    assert [attempt.text for attempt in attempts] == list(words)


def test_one_answer_only_or_free_text_makes_it_abstain_and_say_why() -> None:
    backend = LearnedBackend("m", {"max_classes": 3})
    backend.fit(["a", "b"], ["yes", "yes"])
    (attempt,) = ask(backend, ["a"])
    assert attempt.status == "empty"
    assert "fewer than two different answers" in str(attempt.error)
    backend.fit(list("abcd"), list("abcd"))
    (attempt,) = ask(backend, ["a"])
    assert attempt.status == "empty"
    assert "4 different answers, more than max_classes = 3" in str(attempt.error)
    backend.fit([], [])
    assert ask(backend, ["a"])[0].status == "empty"
    backend.fit(["good", "bad"], ["yes", "no"])
    assert ask(backend, ["good"])[0].text == "yes"
    backend.close()


def test_odd_texts_are_texts_too() -> None:
    backend = LearnedBackend("m")
    backend.fit(["", " ", "\x00", "a\ud800", "b" * 100_000], ["x", "x", "y", "y\x00", "x"])
    attempts = ask(backend, ["", "\udfff", "a", "b" * 1_000_000])
    backend.close()
    assert {attempt.status for attempt in attempts} == {"ok"}
    assert {attempt.text for attempt in attempts} <= {"x", "y", "y\x00"}


def test_identity_has_the_hyperparameters_and_does_not_change_with_training() -> None:
    backend, other = LearnedBackend("m"), LearnedBackend("m", {"strength": 1.0})
    before = backend.identity(("a",))
    backend.fit(["a", "b"], ["x", "y"])
    assert backend.identity(()) == before
    assert other.identity(()) != before


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"C": 1.0}, "unknown parameter 'C'"),
        ({"strength": 0}, "strength = 0; it must be a number from 0.001"),
        ({"strength": float("nan")}, "strength = nan"),
        ({"strength": True}, "strength = True"),
        ({"max_classes": 1}, "max_classes = 1; it must be a whole number from 2"),
        ({"hash_bits": "18"}, "hash_bits = '18'"),
    ],
)
def test_parameters_are_checked(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LearnedBackend("m", parameters)


def test_pairs_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        LearnedBackend("m").fit(["a", "b"], ["x"])


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'smartsql\[ml\]'"):
        LearnedBackend("m")
