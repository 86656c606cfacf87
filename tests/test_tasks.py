"""When two answers agree, and how a cell becomes a prompt."""

from __future__ import annotations

import pytest

from smartsql.errors import ConfigError
from smartsql.tasks import Task


def key(task: Task, raw: str) -> str | None:
    reading = task.reader()(raw)
    return None if reading is None else reading.key


LABELS = Task("t", "{input}", ("positive", "negative", "not sure"))


@pytest.mark.parametrize(
    ("raw", "label"),
    [
        ("positive", "positive"),
        (" Positive.\n", "positive"),
        ('"NEGATIVE"', "negative"),
        ("**negative**", "negative"),
        ("Positive. The acting is superb", "positive"),
        ("Not  sure", "not sure"),
        ("positive or negative", None),
        ("positively", None),
        ("the review is positive", None),
        ("", None),
        ("...", None),
        ("neutral", None),
    ],
)
def test_labels_are_matched_and_everything_else_is_a_failed_answer(
    raw: str, label: str | None
) -> None:
    assert key(LABELS, raw) == label


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("1,000", "1000.0", True),
        ("5", "5.", True),
        ("0", "-0.0", True),
        ("1e3", "1000", True),
        ("5", "6", False),
        ("1,00", "100", False),
        ('{"a": 1, "b": [2.0]}', '```json\n{"b": [2], "a": 1.0}\n```', True),
        ('{"a": 1}', '{"a": 2}', False),
        (" The  Answer. ", "the answer", True),
        ("Straße", "STRASSE", True),
        ("a b", "ab", False),
    ],
)
def test_open_answers_agree_by_number_json_or_text(one: str, other: str, equal: bool) -> None:
    task = Task()
    assert (key(task, one) == key(task, other)) is equal


def test_a_stricter_equality_is_kept() -> None:
    assert key(Task(equal="exact"), "A ") != key(Task(equal="exact"), "A")
    assert key(Task(equal="text"), "1.0") != key(Task(equal="text"), "1")
    assert key(Task(equal="number"), "about five") is None
    assert key(Task(equal="json"), "5") is None
    assert key(Task(equal="auto"), "   ") is None
    assert key(Task(equal="auto"), "?!") == "?!"


def test_a_cell_is_data_and_never_part_of_the_template() -> None:
    task = Task("t", "A {input} B {input}")
    assert task.render("{input} {x} \\1") == "A {input} {x} \\1 B {input} {x} \\1"
    assert Task().render("{input}") == "{input}"


def test_templates_and_labels_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"has no \{input\}"):
        Task("t", "no place")
    with pytest.raises(ConfigError, match="must differ"):
        Task("t", "{input}", ("Yes", "yes."))
    with pytest.raises(ConfigError, match="may be empty"):
        Task("t", "{input}", ("yes", " "))
