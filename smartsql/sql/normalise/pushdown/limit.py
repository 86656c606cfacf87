"""LIMIT below the call: rows that are cut off are not asked about.

    SELECT id, smart_llm(review) FROM t ORDER BY id LIMIT 5
    SELECT id, smart_llm(review) FROM (SELECT * FROM t ORDER BY id LIMIT 5) AS t ORDER BY id

Only where neither the order nor the number of rows depends on an answer.
"""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.analysis.rows import is_expanding, order_by_columns
from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.binding.outputs import aliases_of
from smartsql.sql.normalise.calls.clauses import clause_of, is_aggregate, own_calls
from smartsql.sql.normalise.hoisting.nest import nest
from smartsql.sql.normalise.syntax.trees import own

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


def _uses_alias(select: exp.Select, root: exp.Expr) -> bool:
    known = aliases_of(select)
    return any(
        isinstance(node, exp.Column) and not node.table and node.name.lower() in known
        for node in own(root)
    )
