"""Where smart calls stand in a query, and where they may."""

from __future__ import annotations

from collections.abc import Iterator

from sqlglot import exp

from smartsql.errors import ParameterError, UnplannableCallError
from smartsql.sql.normalise.dialect import aggregates, sql
from smartsql.types import Requirement

NAMES = frozenset({"smart_llm"})
"""Functions whose calls are planned."""

CLAUSES = {
    "expressions": "the SELECT list",
    "where": "WHERE",
    "group": "GROUP BY",
    "having": "HAVING",
    "qualify": "QUALIFY",
    "order": "ORDER BY",
    "joins": "a JOIN condition",
    "from_": "FROM",
    "laterals": "FROM",
    "pivots": "PIVOT",
    "limit": "LIMIT",
    "offset": "OFFSET",
    "distinct": "DISTINCT ON",
    "windows": "WINDOW",
    "sample": "USING SAMPLE",
}
_FREE = frozenset({"expressions", "qualify", "order"})
"""Clauses in which a window function, and so a call, is legal."""


def is_call(node: exp.Expr | None) -> bool:
    """Whether a node is a smart call that gives a value (the table form is not)."""
    return (
        isinstance(node, exp.Anonymous)
        and node.name.lower() in NAMES
        and bool(node.expressions)
        and not isinstance(node.parent, exp.Table)
    )


def own(root: exp.Expr) -> Iterator[exp.Expr]:
    """The nodes of a query or an expression, without those of the queries inside it."""
    yield root
    for child in root.iter_expressions():
        if not isinstance(child, (exp.Select, exp.SetOperation)):
            yield from own(child)


def own_calls(root: exp.Expr) -> list[exp.Expr]:
    """Smart calls of a query or an expression, outer before inner."""
    return [node for node in own(root) if is_call(node)]


def has_call(root: exp.Expr) -> bool:
    """Whether a smart call stands in a query or an expression itself."""
    return any(is_call(node) for node in own(root))


def clause_of(node: exp.Expr, select: exp.Select) -> str:
    """The clause of `select` in which a node stands, as the key of its argument."""
    while node.parent is not None and node.parent is not select:
        node = node.parent
    return str(node.arg_key)


def is_aggregate(node: exp.Expr) -> bool:
    """Whether a node is an aggregate function, not used as a window."""
    return (
        isinstance(node, exp.Anonymous)
        and node.name.lower() in aggregates()
        and window_of(node) is None
    )


def window_of(node: exp.Expr) -> exp.Window | None:
    """The window specification a function belongs to, if any."""
    parent = node.parent
    while isinstance(parent, (exp.Filter, exp.IgnoreNulls, exp.RespectNulls, exp.WithinGroup)):
        parent = parent.parent
    return parent if isinstance(parent, exp.Window) else None


def needs_lift(call: exp.Expr, select: exp.Select) -> bool:
    """Whether a call stands where only a column may: it must be computed one level below."""
    node = call.parent
    while node is not None and node is not select:
        if is_call(node) or isinstance(node, (exp.Filter, exp.Window)):
            return True
        if isinstance(node, exp.Anonymous) and node.name.lower() in aggregates():
            return True
        node = node.parent
    return clause_of(call, select) in {"group", "windows"}


def is_native(call: exp.Expr, select: exp.Select) -> bool:
    """Whether DuckDB can run the call where it stands."""
    return clause_of(call, select) in _FREE and not needs_lift(call, select)


def in_expression(select: exp.Select) -> bool:
    """Whether a query stands in an expression or LATERAL, where outer columns are visible."""
    node: exp.Expr = select
    while node.parent is not None:
        parent = node.parent
        if isinstance(parent, exp.Lateral):
            return True
        if isinstance(parent, exp.Select) and node.arg_key not in {"from_", "joins", "with_"}:
            return True
        node = parent
    return False


def refuse(call: exp.Expr, clause: str, rewrite: str) -> UnplannableCallError:
    """The error for a call that cannot be planned."""
    return UnplannableCallError(sql(call), clause, rewrite)


def check_literals(call: exp.Expr) -> None:
    """Check delta and gamma where they are written as numbers; an empty table would not.

    Raises:
        ParameterError: out of range or NULL.
    """
    given: dict[str, object] = {"delta": 0.1, "gamma": 0.95}
    positions = ["prompt", "delta", "gamma", "task", "site"]
    if isinstance(call.parent, exp.Table):
        positions.insert(0, "table")
    for position, argument in enumerate(call.expressions):
        name, value = None, argument
        if isinstance(argument, (exp.PropertyEQ, exp.Kwarg)):
            name, value = argument.name.lower(), argument.expression
        elif position < len(positions):
            name = positions[position]
        if name not in given:
            continue
        if isinstance(value, exp.Null):
            raise ParameterError(
                f"{name} of {sql(call)} is NULL; give a number, such as "
                f"delta := 0.1, gamma := 0.95."
            )
        number = _number(value)
        if number is not None:
            given[name] = number
    Requirement(given["delta"], given["gamma"])  # type: ignore[arg-type]


def _number(value: exp.Expr) -> float | None:
    if isinstance(value, exp.Neg):
        inner = _number(value.this)
        return None if inner is None else -inner
    if isinstance(value, exp.Literal) and not value.is_string:
        return float(value.this.replace("_", ""))
    return None
