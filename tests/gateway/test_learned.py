from __future__ import annotations

import random
from collections.abc import Sequence
from queue import SimpleQueue
from threading import Event

import pytest

from smartsql.config import Model, load
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
    assert ask(backend, ["good indeed"])[0].text == "yes"
    backend.close()


def test_odd_texts_are_texts_too() -> None:
    backend = LearnedBackend("m")
    backend.fit(["", " ", "\x00", "a\ud800", "b" * 100_000], ["x", "x", "y", "y\x00", "x"])
    attempts = ask(backend, ["", "\udfff", "a", "b" * 1_000_000])
    backend.close()
    assert [attempt.status for attempt in attempts] == ["empty", "ok", "ok", "ok"]
    assert {attempt.text for attempt in attempts[1:]} <= {"x", "y", "y\x00"}


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
        ({"least_confidence": 1.5}, "least_confidence = 1.5; it must be a number from 0 to 1"),
        ({"distils": "m"}, "distils = 'm'; it must be the name of another model"),
        ({"distils": 3}, "distils = 3"),
    ],
)
def test_parameters_are_checked(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LearnedBackend("m", parameters)


@pytest.mark.parametrize("distils", ["litle", "big", "student"])
def test_what_is_distilled_must_be_a_candidate_with_answers_of_its_own(distils: str) -> None:
    models = (
        Model(name="big", reference=True, api_key_env="K"),
        Model(name="little", api_key_env="K"),
        Model(name="pupil", kind="learned", parameters={"distils": distils}),
        Model(name="student", kind="learned"),
    )
    with pytest.raises(ConfigError, match=f"distils = '{distils}'.*Did you mean 'little'"):
        load(models=models)


@pytest.mark.parametrize(
    ("parameters", "labels"),
    [({"least_confidence": 0.9999}, ()), ({}, ("other", "labels"))],
)
def test_it_abstains_when_it_is_not_sure_and_on_answers_that_are_not_allowed(
    parameters: dict[str, object], labels: tuple[str, ...]
) -> None:
    backend = LearnedBackend("m", parameters)
    backend.fit(*sample(60, seed=1))
    out: Attempts = SimpleQueue()
    backend.start([Request(0, "the film , superb story", "")], labels, out, Event())
    (attempt,) = out.get(timeout=30)
    backend.close()
    assert (attempt.status, attempt.text) == ("empty", None)


def test_pairs_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        LearnedBackend("m").fit(["a", "b"], ["x"])


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'smartsql\[ml\]'"):
        LearnedBackend("m")
