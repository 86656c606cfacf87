"""Which rows a query gives, how many of them are wanted and in which order."""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.analysis.purity import is_steady
from smartsql.sql.normalise.binding.outputs import aliases_of
from smartsql.sql.normalise.calls.clauses import has_call, is_aggregate
from smartsql.sql.normalise.syntax.trees import own

OTHER_ROWS = ("group", "having", "distinct", "windows", "sample", "pivots")
"""Clauses above which the rows are not those of WHERE."""


def is_expanding(node: exp.Expr) -> bool:
    """Whether a node gives several rows or columns."""
    return isinstance(node, (exp.Unnest, exp.Columns)) or (
        isinstance(node, exp.Anonymous) and node.name.lower() in {"unnest", "generate_subscripts"}
    )


def order_by_columns(select: exp.Select) -> exp.Order | None:
    """ORDER BY with aliases and positions written out; None if it depends on a call."""
    known = aliases_of(select)
    order: exp.Order = select.args["order"].copy()
    for item in order.expressions:
        key = item.this
        if isinstance(key, exp.Literal) and not key.is_string:
            position = int(key.this) if key.this.isdigit() else 0
            if not 1 <= position <= len(select.expressions):
                return None
            meaning = select.expressions[position - 1]
            if any(isinstance(e, exp.Star) or e.is_star for e in select.expressions[:position]):
                return None
            item.set("this", meaning.unalias().copy())
        elif isinstance(key, exp.Column) and not key.table and key.name.lower() in known:
            item.set("this", known[key.name.lower()].copy())
        elif (isinstance(key, exp.Column) and key.name.upper() == "ALL") or any(
            isinstance(node, exp.Column) and not node.table and node.name.lower() in known
            for node in own(key)
        ):
            return None
    return None if has_call(order) else order


def can_stop(select: exp.Select) -> bool:
    """Whether a query with conditions on answers wants a known number of rows."""
    if wanted_rows(select) is None or any(select.args.get(k) for k in OTHER_ROWS):
        return False
    if select.args.get("from_") is None or not is_steady(select):
        return False
    return not any(
        isinstance(node, exp.Window) or is_aggregate(node) or is_expanding(node)
        for node in own(select)
    )


def wanted_rows(select: exp.Select) -> int | None:
    """Rows that LIMIT and OFFSET let through or skip; None if not written as numbers."""
    limit, offset = select.args.get("limit"), select.args.get("offset")
    if not isinstance(limit, exp.Limit) or limit.args.get("limit_options"):
        return None
    numbers = [limit.expression] + ([offset.expression] if offset is not None else [])
    if not all(
        isinstance(n, exp.Literal) and not n.is_string and n.this.isdigit() for n in numbers
    ):
        return None
    return sum(int(number.this) for number in numbers)
