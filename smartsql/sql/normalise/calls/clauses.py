"""Where smart calls stand in a query, and where they may."""

from __future__ import annotations

from sqlglot import exp

from smartsql.errors import ParameterError, UnplannableCallError
from smartsql.sql.normalise.calls.signatures import SIGNATURES, arguments, check_subject
from smartsql.sql.normalise.syntax.dialect import sql
from smartsql.sql.normalise.syntax.engine import aggregates
from smartsql.sql.normalise.syntax.trees import every, nodes, own
from smartsql.types import Requirement

NAMES = frozenset(SIGNATURES)
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


def table_calls(root: exp.Expr) -> list[exp.Anonymous]:
    """All smart calls in FROM."""
    return [
        node
        for node in every(root, exp.Anonymous)
        if node.name.lower() in NAMES and isinstance(node.parent, exp.Table)
    ]


def is_columns(node: exp.Expr) -> bool:
    """Whether a node stands for several columns."""
    return isinstance(node, exp.Anonymous) and node.name.lower() in {"columns", "unpack"}


def own_calls(root: exp.Expr) -> list[exp.Expr]:
    """Smart calls of a query or an expression, outer before inner."""
    return [node for node in own(root) if node.__class__ is exp.Anonymous and is_call(node)]


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
        and (node.name.lower() in aggregates() or isinstance(node.parent, exp.WithinGroup))
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
        if is_call(node) or isinstance(
            node, (exp.Filter, exp.Window, exp.WithinGroup, exp.Lambda, exp.Comprehension)
        ):
            return True
        if isinstance(node, exp.Anonymous) and node.name.lower() in aggregates():
            return True
        node = node.parent
    return clause_of(call, select) in {"group", "windows", "distinct"}


def depends_on_lambda(call: exp.Expr, select: exp.Select) -> bool:
    """Whether a call stands in a lambda or a list comprehension and uses its variables."""
    used = {node.name.lower() for node in nodes(call) if isinstance(node, exp.Identifier)}
    node = call.parent
    while node is not None and node is not select:
        if isinstance(node, (exp.Lambda, exp.Comprehension)):
            declared = [node.expression, *node.expressions, node.args.get("position")]
            names = {
                part.name.lower()
                for item in declared
                if item is not None
                for part in every(item, exp.Identifier)
            }
            if used & names:
                return True
        node = node.parent
    return False


def is_native(call: exp.Expr, select: exp.Select) -> bool:
    """Whether DuckDB can run the call where it stands."""
    return clause_of(call, select) in _FREE and not needs_lift(call, select)


def refuse(
    call: exp.Expr, clause: str, rewrite: str, reason: str | None = None
) -> UnplannableCallError:
    """The error for a call that cannot be planned; the usual reason is that of the error."""
    if reason is None:
        return UnplannableCallError(sql(call), clause, rewrite)
    return UnplannableCallError(sql(call), clause, rewrite, reason)


def refuse_as_aggregate(call: exp.Expr) -> None:
    """Refuse a call written as if it looked at several rows.

    Raises:
        UnplannableCallError: FILTER, OVER, DISTINCT, ORDER BY or IGNORE NULLS on the call itself.
    """
    reason = "a smart call gives a value for each row and takes no such clause"
    parent = call.parent
    for kind, clause, rewrite in _AGGREGATE_FORMS:
        if isinstance(parent, kind) and parent.this is call:
            raise refuse(call, clause, rewrite, reason)
    for argument in call.expressions:
        for kind, clause, rewrite in _AGGREGATE_ARGUMENTS:
            if isinstance(argument, kind):
                raise refuse(call, clause, rewrite, reason)


_AGGREGATE_FORMS: tuple[tuple[type[exp.Expr], str, str], ...] = (
    (exp.Filter, "FILTER", "Write CASE WHEN <condition> THEN smart_llm(..) END."),
    (exp.Window, "OVER", "Leave OVER out: the promise covers all rows of the query anyway."),
    (exp.WithinGroup, "WITHIN GROUP", "Leave WITHIN GROUP out."),
    (exp.IgnoreNulls, "IGNORE NULLS", "Leave IGNORE NULLS out: a NULL prompt has a NULL answer."),
    (exp.RespectNulls, "RESPECT NULLS", "Leave RESPECT NULLS out."),
)
_AGGREGATE_ARGUMENTS: tuple[tuple[type[exp.Expr], str, str], ...] = (
    (exp.Distinct, "DISTINCT", "Leave DISTINCT out: each distinct prompt is asked only once."),
    (exp.Order, "ORDER BY", "Leave ORDER BY out of the call, or aggregate first and call then."),
)


def check_literals(call: exp.Expr) -> None:
    """Check what is written as a literal; an empty table would not.

    Raises:
        ParameterError: delta or gamma out of range or NULL; question, labels or structure that
            cannot be used.
    """
    check_subject(call)
    given: dict[str, object] = {"delta": 0.1, "gamma": 0.95}
    for name, value in arguments(call).items():
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
