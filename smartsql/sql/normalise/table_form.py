"""`FROM smart_llm((SELECT ..), col)`: DuckDB's table functions take no queries, but names."""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.calls import NAMES
from smartsql.sql.normalise.nest import Names


def table_calls(root: exp.Expr) -> list[exp.Anonymous]:
    """All smart calls in FROM."""
    return [
        node
        for node in root.find_all(exp.Anonymous)
        if node.name.lower() in NAMES and isinstance(node.parent, exp.Table)
    ]


def plan_table_form(root: exp.Expr, names: Names) -> None:
    """Give the query in the first argument a name, in a WITH clause of the query around it."""
    for call in table_calls(root):
        query = call.expressions[0] if call.expressions else None
        select = call.find_ancestor(exp.Select)
        if isinstance(query, exp.Subquery) and select is not None:
            name = names.fresh("query")
            query.replace(exp.column(name))
            select.with_(name, as_=query.this, copy=False)
            names.changed = True
