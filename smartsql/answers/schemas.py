"""JSON schemas for endpoints that hold a model to them, in the subset that is enforced strictly.

All keys are required and no others are allowed; what the text does not say is null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from smartsql.answers.structures import Leaf, ListOf, Shape, Struct

ANSWER = "answer"
"""The key under which a single word stands: the root must be an object."""
LARGEST_EXACT = 2**53
"""Beyond it JSON readers may round an integer."""
_TYPES = {"text": "string", "boolean": "boolean", "integer": "integer", "float": "number"}
_FORMATS = {"date": "date", "time": "time", "timestamp": "date-time"}


def choice_schema(labels: Sequence[str]) -> dict[str, Any]:
    """One of some texts."""
    return _object({ANSWER: {"type": "string", "enum": list(labels)}})


def truth_schema() -> dict[str, Any]:
    """True or false."""
    return _object({ANSWER: {"type": "boolean"}})


def structure_schema(shape: Struct) -> dict[str, Any]:
    """A structure."""
    return _object({name: _part(part) for name, part in shape.fields})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _part(shape: Shape) -> dict[str, Any]:
    """A value or null."""
    if isinstance(shape, Struct):
        return {"anyOf": [structure_schema(shape), {"type": "null"}]}
    if isinstance(shape, ListOf):
        return {"anyOf": [{"type": "array", "items": _part(shape.item)}, {"type": "null"}]}
    return _leaf(shape)


def _leaf(leaf: Leaf) -> dict[str, Any]:
    if leaf.kind in _FORMATS:
        return {"type": ["string", "null"], "format": _FORMATS[leaf.kind]}
    if leaf.kind == "decimal":
        return {"type": ["number", "null"], "description": leaf.name}
    part: dict[str, Any] = {"type": [_TYPES[leaf.kind], "null"]}
    if leaf.kind == "integer" and leaf.highest < LARGEST_EXACT:
        # a model that is held to digits alone may never stop writing them
        part |= {"minimum": leaf.lowest, "maximum": leaf.highest}
    return part
