"""Tasks: how a cell becomes a prompt, and when two answers agree.

The normaliser is fixed before a call runs: it decides what counts as a disagreement, so it may
not depend on any answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from typing import Any, Literal

from smartsql.answers.schemas import ANSWER
from smartsql.answers.structures import parsed
from smartsql.answers.values import Unreadable, each_once, read, unfenced
from smartsql.errors import ConfigError
from smartsql.gateway import SHOWN
from smartsql.templates import PLACEHOLDER

Equality = Literal["auto", "exact", "text", "number", "json"]
Kind = Literal["llm", "filter", "classify", "extract"]

TRUTH = ("true", "false")
"""The labels of a question."""
_TRUTH_WORDS = {"yes": "true", "no": "false"}
_PUNCTUATION = " \t\r\n.,;:!?\"'`*_()[]<>“”‘’«»"
_POINT_OF_NUMBER = re.compile(r"\.\d", re.ASCII)
_WIDEST = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
"""Rounds nothing: two long numbers that differ in their last digit are two."""
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
        kind: of the call, by the name of its function; "llm" for answers that are texts.
        options: constants of a call whose answers have a type, as `calls.typed` writes them.
        around: what stands before and after the cell where the prompt is no template: texts that
            a caller wrote, in which nothing is a placeholder. `template` then only identifies.

    Raises:
        ConfigError: a template without `{input}`, or labels that cannot be told apart.
    """

    name: str | None = None
    template: str | None = None
    labels: tuple[str, ...] = ()
    equal: Equality = "auto"
    steps: tuple[Step, ...] = ()
    kind: Kind = "llm"
    options: str = ""
    around: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if self.template is not None and PLACEHOLDER not in self.template:
            raise ConfigError(
                f"the prompt of task {self.name!r} has no {PLACEHOLDER}: write {PLACEHOLDER} where "
                f"the cell's text belongs."
            )
        keys = [folded(label) for label in self.labels]
        if len(set(keys)) != len(keys) or "" in keys:
            raise ConfigError(
                f"the labels of task {self.name!r} must differ by more than case and outer "
                f"punctuation, and none may be empty: {list(self.labels)}"
            )

    def render(self, text: str) -> str:
        """The prompt for a cell. The cell is data: it is put in, never formatted."""
        return text if self.template is None else text.join(self._parts(self.template))

    def rendered(self, texts: Sequence[str]) -> Sequence[str]:
        """The prompts for cells."""
        if self.template is None:
            return texts
        parts = self._parts(self.template)
        return [text.join(parts) for text in texts]

    def _parts(self, template: str) -> Sequence[str]:
        """The texts between which the cell stands."""
        return template.split(PLACEHOLDER) if self.around is None else self.around

    def reader(self) -> Callable[[str], Reading | None]:
        """A function that reads raw answers; None for what is no usable answer."""
        if self.kind == "extract":
            return self._structure_reader()
        if not self.labels:
            return _open_reader(self.equal)
        if self.kind == "llm":
            return _label_reader(self.labels)
        read_label = _label_reader(self.labels, _TRUTH_WORDS if self.kind == "filter" else {})
        # a label may look like the object in which others come
        return lambda raw: read_label(raw if raw.strip() in self.labels else _word(raw))

    def _structure_reader(self) -> Callable[[str], Reading | None]:
        shape = parsed(json.loads(self.options)["structure"])

        def reading(raw: str) -> Reading | None:
            try:
                value = read(raw, shape, _text_or_nothing)
            except Unreadable:
                return None
            shown = json.dumps(value.shown, ensure_ascii=False)
            return Reading(json.dumps(value.key, ensure_ascii=False), shown)

        return reading

    def complaint(self, raw: str) -> str:
        """What is wrong with a raw answer that has no usable value, as a phrase with its start."""
        shown = f"it answered {raw[:SHOWN]!r}" + ("..." if len(raw) > SHOWN else "")
        if self.labels:
            return f"{shown}, which is none of the labels {list(self.labels)}"
        if self.kind != "extract":
            return f"its answer {raw[:SHOWN]!r} is no usable value"
        try:
            read(raw, parsed(json.loads(self.options)["structure"]), _text_or_nothing)
        except Unreadable as error:
            return f"{shown}, which is not of the structure: {error}"
        return f"{shown}, which is not usable"


@dataclass(frozen=True, slots=True)
class Reading:
    """A usable answer.

    Attributes:
        key: answers with equal keys agree.
        text: what the user sees.
    """

    key: str
    text: str


def folded(text: str) -> str:
    """Case, white space and outer punctuation taken away; a number keeps its point: .5 %."""
    said = " ".join(text.casefold().split()).rstrip(_PUNCTUATION)
    rest = said.lstrip(_PUNCTUATION)
    before = said[: len(said) - len(rest)]
    return f".{rest}" if before.endswith(".") and _POINT_OF_NUMBER.match(f".{rest}") else rest


def _label_reader(
    labels: tuple[str, ...], other_words: Mapping[str, str] | None = None
) -> Callable[[str], Reading | None]:
    """Reads labels, and other words that stand for some of them."""
    readings = {folded(label): Reading(label, label) for label in labels}
    for word, label in (other_words or {}).items():
        if label in labels:
            readings.setdefault(word, Reading(label, label))
    by_length = sorted(readings, key=len, reverse=True)
    # "3.7" and "3/10" do not open with the label 3, nor "positive-ish" with positive
    opening = re.compile(rf"({'|'.join(map(re.escape, by_length))})(?!\w|[-/]\w|[.,:]\d)")
    anywhere = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, by_length))})(?!\w)")

    def read(raw: str) -> Reading | None:
        whole = folded(raw)
        if whole in readings:
            return readings[whole]
        # "Positive. The acting is superb": opens with one label and names no other one
        start = opening.match(whole)
        if start and {readings[word] for word in anywhere.findall(whole)} == {readings[start[1]]}:
            return readings[start[1]]
        return None

    return read


def _word(raw: str) -> str:
    """The word in an answer that a model gave as an object; other answers as they are."""
    text = unfenced(raw)
    if text.startswith("{"):
        try:
            value = json.loads(text, object_pairs_hook=each_once)
        except (ValueError, RecursionError):
            return raw
        if not isinstance(value, dict) or list(value) != [ANSWER]:
            return raw
        said = value[ANSWER]
        text = json.dumps(said) if isinstance(said, (bool, int, float)) else said
    return text if isinstance(text, str) else raw


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
    return "0" if value == 0 else str(value.normalize(_WIDEST))


def _json_key(raw: str) -> str | None:
    text = unfenced(raw)
    if text[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(
            text,
            object_pairs_hook=each_once,
            parse_float=_JSONNumber,
            parse_int=_JSONNumber,
            parse_constant=_JSONNumber,
        )
        return json.dumps(_by_value(value), sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None


class _JSONNumber(str):
    """A number of JSON as it was written: a float would round it."""


def _by_value(value: Any) -> Any:
    """1.0 and 1 are the same number, "1" is a text."""
    if isinstance(value, _JSONNumber):
        return [_number_key(value) or value]
    if isinstance(value, list):
        return ["list", *map(_by_value, value)]
    if isinstance(value, dict):
        return {key: _by_value(item) for key, item in value.items()}
    return value


def _text_or_nothing(raw: str) -> str:
    """What counts of a text that may be empty."""
    return _text_key(raw) or ""


def _text_key(raw: str) -> str | None:
    # an answer of punctuation alone is still an answer
    return folded(raw) or " ".join(raw.split()) or None
