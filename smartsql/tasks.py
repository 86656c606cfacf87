"""Tasks: how a cell becomes a prompt, and when two answers agree.

The normaliser is fixed before a call runs: it decides what counts as a disagreement, so it may
not depend on any answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from smartsql.errors import ConfigError

Equality = Literal["auto", "exact", "text", "number", "json"]

PLACEHOLDER = "{input}"
_PUNCTUATION = " \t\r\n.,;:!?\"'`*_()[]<>“”‘’«»"
_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][+-]?\d{1,4})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Step:
    """A simple question that a small model answers first; the answer goes into other prompts.

    Attributes:
        name: a placeholder's name, unique within the task.
        model: name of the model that answers it.
        template: text with `{input}`, and with the names of earlier steps where wanted.
        labels: allowed answers; empty for open answers.
        equal: when two open answers agree.
    """

    name: str
    model: str
    template: str
    labels: tuple[str, ...] = ()
    equal: Equality = "auto"


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt template with the answers it allows.

    Attributes:
        name: its name in the configuration; None for prompts sent as they stand.
        template: text with `{input}` where the cell goes; None sends the cell alone.
        labels: allowed answers; empty for open answers.
        equal: when two open answers agree.
        steps: questions that come before it for models that use them.

    Raises:
        ConfigError: a template without `{input}`, or labels that cannot be told apart.
    """

    name: str | None = None
    template: str | None = None
    labels: tuple[str, ...] = ()
    equal: Equality = "auto"
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if self.template is not None and PLACEHOLDER not in self.template:
            raise ConfigError(
                f"the prompt of task {self.name!r} has no {PLACEHOLDER}: write {PLACEHOLDER} where "
                f"the cell's text belongs."
            )
        folded = [_fold(label) for label in self.labels]
        if len(set(folded)) != len(folded) or "" in folded:
            raise ConfigError(
                f"the labels of task {self.name!r} must differ by more than case and outer "
                f"punctuation, and none may be empty: {list(self.labels)}"
            )

    def render(self, text: str) -> str:
        """The prompt for a cell. The cell is data: it is put in, never formatted."""
        if self.template is None:
            return text
        return text.join(self.template.split(PLACEHOLDER))

    def rendered(self, texts: Sequence[str]) -> Sequence[str]:
        """The prompts for cells."""
        if self.template is None:
            return texts
        parts = self.template.split(PLACEHOLDER)
        return [text.join(parts) for text in texts]

    def reader(self) -> Callable[[str], Reading | None]:
        """A function that reads raw answers; None for what is no usable answer."""
        return _label_reader(self.labels) if self.labels else _open_reader(self.equal)


@dataclass(frozen=True, slots=True)
class Reading:
    """A usable answer.

    Attributes:
        key: answers with equal keys agree.
        text: what the user sees.
    """

    key: str
    text: str


def _fold(text: str) -> str:
    """Case, white space and outer punctuation taken away."""
    return " ".join(text.casefold().split()).strip(_PUNCTUATION)


def _label_reader(labels: tuple[str, ...]) -> Callable[[str], Reading | None]:
    readings = {_fold(label): Reading(label, label) for label in labels}
    by_length = sorted(readings, key=len, reverse=True)
    opening = re.compile(rf"({'|'.join(map(re.escape, by_length))})(?!\w)")
    anywhere = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, by_length))})(?!\w)")

    def read(raw: str) -> Reading | None:
        folded = _fold(raw)
        if folded in readings:
            return readings[folded]
        # "Positive. The acting is superb": opens with one label and names no other one
        start = opening.match(folded)
        if start and set(anywhere.findall(folded)) == {start.group(1)}:
            return readings[start.group(1)]
        return None

    return read


def _open_reader(equal: Equality) -> Callable[[str], Reading | None]:
    keys: dict[Equality, tuple[Callable[[str], str | None], ...]] = {
        "auto": (_number_key, _json_key, _text_key),
        "exact": (lambda raw: raw,),
        "text": (_text_key,),
        "number": (_number_key,),
        "json": (_json_key,),
    }

    def read(raw: str) -> Reading | None:
        if not raw.strip():
            return None
        for key_of in keys[equal]:
            key = key_of(raw)
            if key:
                return Reading(key, raw if equal == "exact" else raw.strip())
        return None

    return read


def _number_key(raw: str) -> str | None:
    text = raw.strip().rstrip(".")
    if not _NUMBER.fullmatch(text) or not any(c.isdigit() for c in text):
        return None
    value = Decimal(text.replace(",", ""))
    return "0" if value == 0 else str(value.normalize())


def _json_key(raw: str) -> str | None:
    text = raw.strip()
    if text.startswith("```"):  # a fenced block, as chat models like to write
        text = text.strip("`").removeprefix("json").strip()
    if text[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(text)
        return json.dumps(_whole_numbers(value), sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None


def _whole_numbers(value: Any) -> Any:
    """1.0 and 1 are the same number."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    return value


def _text_key(raw: str) -> str | None:
    # an answer of punctuation alone is still an answer
    return _fold(raw) or " ".join(raw.split()) or None
