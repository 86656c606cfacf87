"""Values of a structure, read from what a model wrote.

A value is what DuckDB makes of it under its type, so 19.9 and "19.90" are one DECIMAL(10,2), and
2024-01-31 and 2024-1-31 one DATE. Two values agree when they are the same; texts agree as answers
in words do, by case, white space and outer punctuation.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import Any

from smartsql.answers.structures import Kind, Leaf, ListOf, Shape, Struct

LONGEST_NUMBER = 400
"""Characters; the largest DOUBLE has 309 digits."""
_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][+-]?\d{1,4})?", re.ASCII)
_DATE = re.compile(r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})", re.ASCII)
_MIDNIGHT = re.compile(r"[T ]00:00(?::00(?:\.0+)?)?Z?")
_TRUE = frozenset({"true", "yes"})
_FALSE = frozenset({"false", "no"})
_EXACT = Context(prec=200, Emax=9999, Emin=-9999)


class Unreadable(ValueError):
    """What was written is no value of the structure; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value of a structure.

    Attributes:
        shown: JSON-able; DuckDB's `json_transform` reads exactly this value from it.
        key: JSON-able; equal for values that agree.
    """

    shown: Any
    key: Any


def read(raw: str, shape: Struct, fold: Callable[[str], str]) -> Value:
    """The value that a model wrote as JSON, in a fenced block or not.

    Args:
        fold: what of a text counts when two are compared.

    Raises:
        Unreadable: it is no JSON, or not of this structure.
    """
    text = unfenced(raw)
    try:
        value = json.loads(
            text,
            object_pairs_hook=each_once,
            parse_float=_decimal,
            parse_int=_decimal,
            parse_constant=_nothing,
        )
    except Unreadable:
        raise
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"it is not JSON: {error}") from None
    return _value(value, shape, "", fold)


def unfenced(raw: str) -> str:
    """A text without the code fence around it, as chat models like to write."""
    text = raw.strip()
    if text.startswith("```") and text.endswith("```") and len(text) > 6:
        first, _, rest = text[3:-3].partition("\n")
        return (rest if first.strip().lower() in ("", "json") else text[3:-3]).strip()
    return text


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The members of an object of JSON, as a hook for `json`.

    Raises:
        Unreadable: a key stands twice, and may mean either of its values.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Unreadable(f"the key {twice[:60]!r} stands in it twice")
    return found


def _decimal(text: str) -> Decimal:
    if len(text) > LONGEST_NUMBER:
        raise Unreadable(f"a number of {len(text)} digits")
    try:
        return Decimal(text)
    except InvalidOperation:
        raise Unreadable(f"the number {text[:40]} is beyond all types") from None


def _nothing(text: str) -> None:
    raise Unreadable(f"{text} is no number of JSON")


def _value(value: object, shape: Shape, place: str, fold: Callable[[str], str]) -> Value:
    if value is None and place:
        return Value(None, None)
    if isinstance(shape, Struct):
        return _struct(value, shape, place, fold)
    if isinstance(shape, ListOf):
        if not isinstance(value, list):
            raise Unreadable(_wrong(value, place, "a list"))
        items = [_value(v, shape.item, f"{place}[{i}]", fold) for i, v in enumerate(value)]
        return Value([item.shown for item in items], [item.key for item in items])
    if isinstance(value, (dict, list)):
        raise Unreadable(_wrong(value, place, shape.name))
    return _READERS[shape.kind](value, shape, place, fold)


def _struct(value: object, shape: Struct, place: str, fold: Callable[[str], str]) -> Value:
    if not isinstance(value, dict):
        raise Unreadable(_wrong(value, place, "an object"))
    names = [name for name, _ in shape.fields]
    missing = [name for name in names if name not in value]
    extra = [name for name in value if name not in names]
    where = f" in {place!r}" if place else ""
    if missing:
        raise Unreadable(f"the key {missing[0]!r} is missing{where}")
    if extra:
        raise Unreadable(f"the key {extra[0][:60]!r}{where} is not in the structure")
    within = f"{place}." if place else ""
    parts = {n: _value(value[n], part, within + n, fold) for n, part in shape.fields}
    return Value(
        {name: part.shown for name, part in parts.items()}, [part.key for part in parts.values()]
    )


def _wrong(value: object, place: str, wanted: str) -> str:
    said = {dict: "an object", list: "a list", type(None): "null", bool: "a truth value"}.get(
        type(value), repr(str(value)[:40])
    )
    return f"{place or 'the answer'} is {said}, not {wanted}"


def _text(value: object, leaf: Leaf, place: str, fold: Callable[[str], str]) -> Value:
    if isinstance(value, bool):
        value = "true" if value else "false"
    text = f"{value:f}" if isinstance(value, Decimal) and _is_plain(value) else str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unreadable(f"{place} holds half a character (a lone surrogate)") from None
    return Value(text, fold(text))


def _is_plain(number: Decimal) -> bool:
    """Whether a number is of a length that one writes out."""
    return abs(number.adjusted()) < LONGEST_NUMBER


def _boolean(value: object, leaf: Leaf, place: str, fold: Callable[[str], str]) -> Value:
    said = str(value).strip().lower()
    if said in _TRUE | _FALSE:
        return Value(said in _TRUE, said in _TRUE)
    raise Unreadable(_wrong(value, place, "true or false"))


def _number(value: object, leaf: Leaf, place: str) -> Decimal:
    """A number that is written as one, or as a text that holds nothing else."""
    if isinstance(value, Decimal):
        return value
    text = value.strip() if isinstance(value, str) else ""
    is_number = _NUMBER.fullmatch(text) and any(c.isdigit() for c in text)
    if not is_number or len(text) > LONGEST_NUMBER:
        raise Unreadable(_wrong(value, place, f"a number ({leaf.name})"))
    return Decimal(text.replace(",", ""))


def _integer(value: object, leaf: Leaf, place: str, fold: Callable[[str], str]) -> Value:
    number = _number(value, leaf, place)
    if number.adjusted() > 40 or number != number.to_integral_value(context=_EXACT):
        raise Unreadable(f"{place} is {str(number)[:40]}, which is no {leaf.name}")
    whole = int(number)
    if not leaf.lowest <= whole <= leaf.highest:
        raise Unreadable(f"{place} is {whole}, which is out of the range of {leaf.name}")
    # DuckDB reads integers beyond 64 bits from texts exactly, from JSON numbers not
    return Value(whole if abs(whole) < 2**53 else str(whole), str(whole))


def _fixed(value: object, leaf: Leaf, place: str, fold: Callable[[str], str]) -> Value:
    number = _number(value, leaf, place)
    most = leaf.width - leaf.scale
    try:
        if number and number.adjusted() > most:
            raise InvalidOperation
        unit = Decimal(1).scaleb(-leaf.scale)
        rounded = number.quantize(unit, ROUND_HALF_UP, context=_EXACT)
    except InvalidOperation:
        rounded = None
    if rounded is None or (rounded and rounded.adjusted() >= most):
        raise Unreadable(f"{place} is {str(number)[:40]}, too large for {leaf.name}")
    text = f"{rounded if rounded else abs(rounded):f}"
    return Value(text, text)


def _floating(value: object, leaf: Leaf, place: str, fold: Callable[[str], str]) -> Value:
    number = float(_number(value, leaf, place))
    if leaf.name == "FLOAT" and math.isfinite(number):
        try:
            number = struct.unpack("<f", struct.pack("<f", number))[0]
        except OverflowError:
            number = math.inf
    if not math.isfinite(number):
        raise Unreadable(f"{place} is too large for {leaf.name}")
    number += 0.0  # one zero
    return Value(number, repr(number))


def _date(value: object, leaf: Leaf, place: str, fold: Callable[[str], str]) -> Value:
    text = str(value).strip()
    found = _DATE.match(text)
    rest = text[found.end() :] if found else "?"
    if found and (not rest or _MIDNIGHT.fullmatch(rest)):
        try:
            day = date(int(found[1]), int(found[2]), int(found[3])).isoformat()
        except ValueError:
            raise Unreadable(f"{place} is {text[:40]!r}, which is no day of the calendar") from None
        return Value(day, day)
    raise Unreadable(_wrong(value, place, "a date (YYYY-MM-DD)"))


def _time(value: object, leaf: Leaf, place: str, fold: Callable[[str], str]) -> Value:
    try:
        said = time.fromisoformat(str(value).strip())
        if said.utcoffset():
            raise ValueError
    except ValueError:
        raise Unreadable(_wrong(value, place, "a time without zone (HH:MM:SS)")) from None
    shown = said.replace(tzinfo=None).isoformat()
    return Value(shown, shown)


def _timestamp(value: object, leaf: Leaf, place: str, fold: Callable[[str], str]) -> Value:
    try:
        moment = datetime.fromisoformat(str(value).strip())
        if moment.tzinfo is not None:  # as DuckDB does: TIMESTAMP has no zone
            moment = moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        wanted = "a date and time (YYYY-MM-DDTHH:MM:SS)"
        raise Unreadable(_wrong(value, place, wanted)) from None
    shown = moment.isoformat(" ")
    return Value(shown, shown)


_READERS: dict[Kind, Callable[[object, Leaf, str, Callable[[str], str]], Value]] = {
    "text": _text,
    "boolean": _boolean,
    "integer": _integer,
    "decimal": _fixed,
    "float": _floating,
    "date": _date,
    "time": _time,
    "timestamp": _timestamp,
}
