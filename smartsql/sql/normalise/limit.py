"""LIMIT below the call: rows that are cut off are not asked about.

    SELECT id, smart_llm(review) FROM t ORDER BY id LIMIT 5
    SELECT id, smart_llm(review) FROM (SELECT * FROM t ORDER BY id LIMIT 5) AS t ORDER BY id

Only where neither the order nor the number of rows depends on an answer.
"""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.calls import (
    clause_of,
    has_call,
    is_aggregate,
    own,
    own_calls,
)
from smartsql.sql.normalise.cheap import is_steady
from smartsql.sql.normalise.nest import Names, aliases_of, nest

OTHER_ROWS = ("group", "having", "distinct", "windows", "sample", "pivots")
"""Clauses above which the rows are not those of WHERE."""
_ROWS_CHANGE = ("distinct", "group", "having", "qualify", "windows", "sample", "pivots")


def plan_limit(select: exp.Select, names: Names) -> bool:
    """Push LIMIT, OFFSET and a copy of ORDER BY below the calls; True if they moved."""
    if not select.args.get("limit") or not _is_row_by_row(select):
        return False
    order = order_by_columns(select) if select.args.get("order") else None
    if order is None and select.args.get("order"):
        return False
    names.spared = True
    _plain_limit(select)
    where = select.args.get("where")
    select.set("where", None)
    condition = None if where is None else where.this
    nest(select, names, where=condition, order=order, tail=("limit", "offset"))
    return True


def _plain_limit(select: exp.Select) -> None:
    """Write FETCH FIRST .. ROWS ONLY as LIMIT."""
    fetch = select.args["limit"]
    if isinstance(fetch, exp.Fetch):
        count = fetch.args.get("count") or exp.Literal.number(1)
        select.set("limit", exp.Limit(expression=count))


def _is_row_by_row(select: exp.Select) -> bool:
    """Whether each row of FROM that WHERE lets through is one output row, answers or not."""
    if any(select.args.get(key) for key in _ROWS_CHANGE) or not select.args.get("from_"):
        return False
    calls = own_calls(select)
    if not calls or any(clause_of(call, select) != "expressions" for call in calls):
        return False
    where = select.args.get("where")
    if where is not None and _uses_alias(select, where):
        return False
    return not any(
        isinstance(node, exp.Window)
        or is_aggregate(node)
        or is_expanding(node)
        # a query inside may be correlated
        or any(isinstance(c, (exp.Select, exp.SetOperation)) for c in node.iter_expressions())
        for item in select.expressions
        for node in own(item)
    )


def is_expanding(node: exp.Expr) -> bool:
    """Whether a node gives several rows or columns."""
    return isinstance(node, (exp.Unnest, exp.Columns)) or (
        isinstance(node, exp.Anonymous) and node.name.lower() in {"unnest", "generate_subscripts"}
    )


def _uses_alias(select: exp.Select, root: exp.Expr) -> bool:
    known = aliases_of(select)
    return any(
        isinstance(node, exp.Column) and not node.table and node.name.lower() in known
        for node in own(root)
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
