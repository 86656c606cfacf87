"""Answers in words that differ by value are never taken as equal, nor equal ones as different."""

from __future__ import annotations

import pytest

from smartsql.calls.typed import options_of, task_of
from smartsql.tasks import Task


def key(raw: str, task: Task | None = None) -> str | None:
    reading = (task or Task()).reader()(raw)
    return None if reading is None else reading.key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1" * 40, "1" * 39 + "2"),
        ("9007199254740992", "9007199254740993"),
        ("5%", ".5%"),
        ("50 USD", ".50 USD"),
        ("5", '".5"'),
        ('{"a": 9007199254740993.0}', '{"a": 9007199254740992}'),
        ("[1e400]", "[1e401]"),
        ("[0.1]", "[0.10000000000000000001]"),
        ("[1]", '["1"]'),
        ("[1]", "[true]"),
        ("[[1], [2]]", "[[1, 2]]"),
        ('{"a": 1, "a": 2}', '{"a": 2}'),
        ('{"a": null}', "{}"),
    ],
)
def test_answers_of_another_value_do_not_agree(one: str, other: str) -> None:
    assert key(one) != key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1e3", "1,000.00"),
        ("0", "-0.0"),
        ('{"a": 1.0, "b": [1e2]}', '```json\n{"b": [100], "a": 1}\n```'),
        ("'.5 %'", ".5 %"),
        ("  Yes, it is. ", "yes, it is"),
    ],
)
def test_answers_of_one_value_agree(one: str, other: str) -> None:
    assert key(one) == key(other) is not None


@pytest.mark.parametrize("raw", ["3.7", "3,5", "3/10", "3-4", "3:00", "3.7 because", "-3", "33"])
def test_a_number_that_begins_like_a_label_is_not_that_label(raw: str) -> None:
    assert key(raw, Task(template="{input}", labels=("1", "2", "3"))) is None


def test_a_label_with_a_reason_is_that_label() -> None:
    task = Task(template="{input}", labels=("1", "2", "3"))
    assert [key(raw, task) for raw in ("3.", "3. Good", "3, surely", "3: good")] == ["3"] * 4
    tone = Task(template="{input}", labels=("positive", "negative"))
    assert key("Positive.The acting is superb", tone) == "positive"
    assert key("positive/neutral", tone) is key("positive-ish", tone) is None


def test_an_object_that_names_two_answers_is_none() -> None:
    task = task_of("classify", options_of("classify", '["a", "b"]'))
    assert key('{"answer": "a", "answer": "b"}', task) is None
    assert key('{"answer": "b"}', task) == "b"
