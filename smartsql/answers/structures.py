"""Structures of answers, written as for DuckDB's `json_transform`: names and types in JSON.

    {"price": "DECIMAL(10,2)", "currency": "VARCHAR", "parts": [{"name": "VARCHAR"}]}

An object is a STRUCT, an array of one entry a LIST, a text the name of a type.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from smartsql.errors import ParameterError

Kind = Literal["text", "boolean", "integer", "decimal", "float", "date", "time", "timestamp"]

MOST_FIELDS = 1000
DEEPEST = 16
"""Structures within structures; more is a mistake, and would be none that an endpoint takes."""

_INTEGERS = {
    "TINYINT": (True, 8),
    "SMALLINT": (True, 16),
    "INTEGER": (True, 32),
    "BIGINT": (True, 64),
    "HUGEINT": (True, 128),
    "UTINYINT": (False, 8),
    "USMALLINT": (False, 16),
    "UINTEGER": (False, 32),
    "UBIGINT": (False, 64),
    "UHUGEINT": (False, 128),
}
_NAMES: dict[str, Kind] = {
    "VARCHAR": "text",
    "BOOLEAN": "boolean",
    **dict.fromkeys(_INTEGERS, "integer"),
    "FLOAT": "float",
    "DOUBLE": "float",
    "DATE": "date",
    "TIME": "time",
    "TIMESTAMP": "timestamp",
}
_ALIASES = {
    **dict.fromkeys(("TEXT", "STRING", "CHAR", "BPCHAR"), "VARCHAR"),
    **dict.fromkeys(("BOOL", "LOGICAL"), "BOOLEAN"),
    "INT1": "TINYINT",
    **dict.fromkeys(("INT2", "INT16", "SHORT"), "SMALLINT"),
    **dict.fromkeys(("INT", "INT4", "INT32", "SIGNED"), "INTEGER"),
    **dict.fromkeys(("INT8", "INT64", "LONG"), "BIGINT"),
    "INT128": "HUGEINT",
    **dict.fromkeys(("REAL", "FLOAT4"), "FLOAT"),
    "FLOAT8": "DOUBLE",
    "DATETIME": "TIMESTAMP",
}
_DECIMAL = re.compile(r"(?:DECIMAL|NUMERIC|DEC)(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?")
_KNOWN = (
    "VARCHAR, BOOLEAN, TINYINT to HUGEINT (and U..), FLOAT, DOUBLE, DECIMAL(p,s), DATE, TIME, "
    'TIMESTAMP, [type] for a list, {"name": type} for a struct'
)
_EXAMPLE = '{"price": "DECIMAL(10,2)", "currency": "VARCHAR"}'


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value of a plain type.

    Attributes:
        name: of the type in DuckDB.
        lowest, highest: of integers.
        width, scale: of decimals: digits in all and behind the point.
    """

    kind: Kind
    name: str
    lowest: int = 0
    highest: int = 0
    width: int = 0
    scale: int = 0


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of values of one shape."""

    item: Shape


@dataclass(frozen=True, slots=True)
class Struct:
    """Named values, in the order in which they were written."""

    fields: tuple[tuple[str, Shape], ...]


Shape = Leaf | ListOf | Struct


@lru_cache(maxsize=256)
def parsed(structure: str) -> Struct:
    """The structure that a text describes.

    Raises:
        ParameterError: it is no JSON, not an object, or has a type that is not known.
    """
    try:
        value = json.loads(structure, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise ParameterError(
            f"the structure {_short(structure)} is not JSON ({error}). Write names and types, such "
            f"as '{_EXAMPLE}'."
        ) from None
    if not isinstance(value, _Pairs):
        raise ParameterError(
            f"the structure {_short(structure)} is not a JSON object, so it describes no STRUCT. "
            f"Write names and types, such as '{_EXAMPLE}'."
        )
    shape = _shape(value, "", 1)
    assert isinstance(shape, Struct)
    n_fields = sum(len(part.fields) for part in _structs(shape))
    if n_fields > MOST_FIELDS:
        raise ParameterError(f"the structure has {n_fields} fields; at most {MOST_FIELDS} work.")
    return shape


def canonical(structure: str) -> str:
    """The same structure in one spelling: names of types as DuckDB knows them, no white space.

    Raises:
        ParameterError: see `parsed`.
    """
    return json.dumps(_written(parsed(structure)), ensure_ascii=False, separators=(",", ":"))


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its keys as they stand, repeated ones too."""


def _shape(value: object, place: str, depth: int) -> Shape:
    where = f"the field {place!r} of the structure" if place else "the structure"
    if depth > DEEPEST:
        raise ParameterError(f"{where} is nested more than {DEEPEST} deep; flatten it.")
    if isinstance(value, str):
        return _leaf(value, where, depth)
    if isinstance(value, _Pairs):
        return _struct(value, where, place, depth)
    if isinstance(value, list):
        if len(value) != 1:
            raise ParameterError(
                f"{where} is an array of {len(value)} entries; a list is written with the type of "
                f'its items alone, such as ["VARCHAR"].'
            )
        return ListOf(_shape(value[0], f"{place}[]", depth + 1))
    raise ParameterError(f"{where} is {json.dumps(value)}; write the name of a type: {_KNOWN}.")


def _struct(pairs: _Pairs, where: str, place: str, depth: int) -> Struct:
    if not pairs:
        raise ParameterError(f"{where} has no fields; name at least one, such as '{_EXAMPLE}'.")
    names = [name.casefold() for name, _ in pairs]
    for name, _ in pairs:
        if not name.strip() or names.count(name.casefold()) > 1:
            raise ParameterError(
                f"{where} has the field name {name!r}, which is "
                + ("there twice (case aside); rename one." if name.strip() else "blank; name it.")
            )
    within = f"{place}." if place else ""
    return Struct(tuple((name, _shape(v, within + name, depth + 1)) for name, v in pairs))


def _leaf(written: str, where: str, depth: int) -> Shape:
    name = " ".join(written.upper().split())
    if name.endswith("[]"):
        return (
            ListOf(_shape(name[:-2], "", depth + 1)) if name != "[]" else _unknown(written, where)
        )
    name = _ALIASES.get(name, name)
    decimal = _DECIMAL.fullmatch(name)
    if decimal:
        width = 18 if decimal[1] is None else int(decimal[1])
        scale = 3 if decimal[1] is None else int(decimal[2] or 0)
        if not 1 <= width <= 38 or scale > width:
            raise ParameterError(
                f"{where} has the type {written!r}; a DECIMAL has 1 to 38 digits, of which no more "
                f"than all stand behind the point."
            )
        return Leaf("decimal", f"DECIMAL({width},{scale})", width=width, scale=scale)
    if name in _INTEGERS:
        signed, bits = _INTEGERS[name]
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        return Leaf("integer", name, lowest=low, highest=high)
    return Leaf(_NAMES[name], name) if name in _NAMES else _unknown(written, where)


def _unknown(written: str, where: str) -> Leaf:
    raise ParameterError(f"{where} has the unknown type {written!r}. Known are {_KNOWN}.")


def _written(shape: Shape) -> Any:
    if isinstance(shape, Leaf):
        return shape.name
    if isinstance(shape, ListOf):
        return [_written(shape.item)]
    return {name: _written(part) for name, part in shape.fields}


def _structs(shape: Shape) -> Iterator[Struct]:
    if isinstance(shape, ListOf):
        yield from _structs(shape.item)
    elif isinstance(shape, Struct):
        yield shape
        for _, part in shape.fields:
            yield from _structs(part)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
