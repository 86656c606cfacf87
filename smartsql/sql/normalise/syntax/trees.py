"""Walks over trees, and copies of them: what sqlglot offers, in half of its time or less.

Planning a query walks through its tree some hundred times, once for each question of a rule.
"""

from __future__ import annotations

from typing import Any, TypeVar

from sqlglot import exp

_Node = TypeVar("_Node", bound=exp.Expr)

_QUERIES = (exp.Select, exp.SetOperation)
_LEAVES = frozenset({exp.Identifier, exp.Literal, exp.Null, exp.Boolean})
"""Nodes without parts."""


def nodes(root: exp.Expr) -> list[exp.Expr]:
    """The nodes of a tree as it is now, those nearer to its root first."""
    found = [root]
    for node in found:  # grows while it is read
        if node.__class__ in _LEAVES:
            continue
        for value in node.args.values():
            if value.__class__ is list:
                for item in value:
                    if isinstance(item, exp.Expr):
                        found.append(item)
            elif isinstance(value, exp.Expr):
                found.append(value)
    return found


def every(root: exp.Expr, *kinds: type[_Node]) -> list[_Node]:
    """The nodes of these kinds in a tree as it is now, those nearer to its root first."""
    return [node for node in nodes(root) if isinstance(node, kinds)]


def in_order(root: exp.Expr) -> list[exp.Expr]:
    """The nodes of a tree as it is now, each before its parts, and these in their order."""
    found = [root]
    _gather(root, found, ())
    return found


def own(root: exp.Expr) -> list[exp.Expr]:
    """The nodes of a query or an expression as it is now, without those of the queries inside it.

    Each comes before its parts, and these come in their order.
    """
    found = [root]
    _gather(root, found, _QUERIES)
    return found


def _gather(node: exp.Expr, found: list[exp.Expr], left_out: tuple[type[exp.Expr], ...]) -> None:
    for value in node.args.values():
        if value.__class__ is list:
            for item in value:
                if isinstance(item, exp.Expr) and not isinstance(item, left_out):
                    found.append(item)
                    if item.__class__ not in _LEAVES:
                        _gather(item, found, left_out)
        elif isinstance(value, exp.Expr) and not isinstance(value, left_out):
            found.append(value)
            if value.__class__ not in _LEAVES:
                _gather(value, found, left_out)


def copied(root: _Node) -> _Node:
    """A copy of a tree; it was read where the tree was."""
    twin = root.__class__()
    pairs: list[tuple[exp.Expr, exp.Expr]] = [(root, twin)]
    for node, other in pairs:  # grows while it is read
        if node._meta:
            other.meta.update(node._meta)
        for name, value in node.args.items():
            if value.__class__ is list:
                parts = [_begun(item, pairs) for item in value]
                other.args[name] = parts
                other._set_parent(name, parts)
            elif isinstance(value, exp.Expr):
                part = _begun(value, pairs)
                other.args[name] = part
                part.parent, part.arg_key = other, name
            else:
                other.args[name] = value
    return twin


def _begun(part: Any, pairs: list[tuple[exp.Expr, exp.Expr]]) -> Any:
    """An empty node for the copy of a part, which is noted; what is no node, as it is."""
    if not isinstance(part, exp.Expr):
        return part
    twin = part.__class__()
    pairs.append((part, twin))
    return twin
