"""Calls whose answers have a type: their constants, checked, and the task that they make.

`smart_filter` asks a question that is answered by true or false, `smart_classify` has labels,
`smart_extract` a structure. The constants go into the prompt as they stand, as the cell does:
nothing in them or in it is a placeholder.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Literal

from smartsql.answers.schemas import choice_schema, structure_schema, truth_schema
from smartsql.answers.structures import canonical, parsed
from smartsql.errors import ParameterError
from smartsql.gateway import Form
from smartsql.tasks import TRUTH, Task, folded
from smartsql.templates import PLACEHOLDER

TypedKind = Literal["filter", "classify", "extract"]

SUBJECTS: dict[str, str] = {"filter": "question", "classify": "labels", "extract": "structure"}
"""What each kind of call must be told beside the input."""
MOST_LABELS = 1000
_FEWEST_LABELS = 2


@lru_cache(maxsize=256)
def options_of(kind: str, subject: str | None, instruction: str | None = None) -> str:
    """The constants of a call in one spelling: equal for calls that ask the same.

    Args:
        kind: "filter", "classify" or "extract".
        subject: the question, the labels as a JSON array of texts, or the structure.
        instruction: what else the model is told; None or blank for nothing.

    Raises:
        ParameterError: NULL, empty, labels that cannot be told apart, a structure that cannot
            be read.
    """
    name = SUBJECTS[kind]
    if subject is None or not subject.strip():
        what = "NULL" if subject is None else "empty"
        raise ParameterError(f"{name} of smart_{kind} is {what}; {_ADVICE[kind]}")
    said = None if instruction is None or not instruction.strip() else instruction.strip()
    if kind == "filter":
        found: dict[str, Any] = {"question": subject.strip()}
    elif kind == "classify":
        found = {"labels": _labels(_listed(subject)), "instruction": said}
    else:
        found = {"structure": canonical(subject), "instruction": said}
    return json.dumps(found, ensure_ascii=False, sort_keys=True)


STRUCTURES = 'Write names and types, such as \'{"price": "DECIMAL(10,2)", "currency": "VARCHAR"}\'.'
"""What to write where a structure cannot be read."""

_ADVICE = {
    "filter": "write what is to be true of the input, such as 'Is the review about delivery?'.",
    "classify": "list the answers that are allowed, such as ['positive', 'negative'].",
    "extract": 'write names and types, such as \'{"price": "DECIMAL(10,2)"}\'.',
}


def _listed(subject: str) -> object:
    """What a JSON text says; other texts are no list, but what they are."""
    try:
        return json.loads(subject)
    except ValueError:
        return subject


def _labels(labels: object) -> list[str]:
    """The labels of a call.

    Raises:
        ParameterError: fewer than two, too many, NULL or blank, or not to be told apart.
    """
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ParameterError(
            f"labels of smart_classify are {str(labels)[:100]!r}, which are not all texts in a "
            f"list; {_ADVICE['classify']}"
        )
    if not _FEWEST_LABELS <= len(labels) <= MOST_LABELS:
        raise ParameterError(
            f"labels of smart_classify are {len(labels)} in number; "
            f"give {_FEWEST_LABELS} to {MOST_LABELS}."
        )
    seen: dict[str, str] = {}
    for label in labels:
        key = folded(label)
        if not key or key in seen:
            raise ParameterError(
                "labels of smart_classify must differ by more than case and outer punctuation, "
                "and none may be blank: "
                + (f"{seen[key]!r} and {label!r}." if key else f"{label!r}.")
            )
        seen[key] = label
    return labels


@lru_cache(maxsize=256)
def task_of(kind: TypedKind, options: str) -> Task:
    """The task of a call with these constants (as `options_of` writes them)."""
    said = json.loads(options)
    labels: tuple[str, ...] = ()
    if kind == "filter":
        before, after = _filter_words(said["question"])
        labels = TRUTH
    elif kind == "classify":
        before, after = _classify_words(said["labels"], said["instruction"])
        labels = tuple(said["labels"])
    else:
        before, after = _extract_words(said["structure"], said["instruction"])
    return Task(
        None,
        before + PLACEHOLDER + after,
        labels,
        kind=kind,
        options=options,
        around=(before, after),
    )


def _filter_words(question: str) -> tuple[str, str]:
    return (
        f"{question}\n\nAnswer true or false about the text below, with that word alone.\n\nText: ",
        "\n\nAnswer (true or false):",
    )


def _classify_words(labels: list[str], instruction: str | None) -> tuple[str, str]:
    asked = f"{instruction}\n\n" if instruction else "Which label fits the text below best?\n\n"
    listed = "\n".join(f"- {label}" for label in labels)
    return (
        f"{asked}Labels:\n{listed}\n\nAnswer with exactly one of the labels, as it is written "
        "here.\n\nText: ",
        "\n\nLabel:",
    )


def _extract_words(structure: str, instruction: str | None) -> tuple[str, str]:
    asked = f"{instruction}\n\n" if instruction else "Extract data from the text below.\n\n"
    return (
        f"{asked}Answer with one JSON object that has exactly these keys, with values of these "
        f"types:\n{structure}\n\nWrite null for what the text does not say, dates as YYYY-MM-DD, "
        "numbers without units and thousands separators.\n\nText: ",
        "\n\nJSON:",
    )


def form_of(task: Task, labels: tuple[str, ...]) -> Form | None:
    """The shape that an endpoint may hold answers to a task to; None for those without a type.

    Args:
        labels: those that are left of the task's.
    """
    if task.kind == "llm":
        return None
    return _form(task.kind, task.options, labels)


@lru_cache(maxsize=256)
def _form(kind: str, options: str, labels: tuple[str, ...]) -> Form:
    if kind == "extract":
        shape = parsed(json.loads(options)["structure"])
        return Form.of("extraction", structure_schema(shape), is_open=True)
    schema = truth_schema() if labels == TRUTH and kind == "filter" else choice_schema(labels)
    return Form.of("answer", schema, is_open=False)
