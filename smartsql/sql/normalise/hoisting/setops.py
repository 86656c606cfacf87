"""Calls in ORDER BY of a set operation: DuckDB orders its rows in a query around it.

SELECT r FROM t UNION SELECT r FROM u ORDER BY smart_llm(r)
SELECT * FROM (SELECT r FROM t UNION SELECT r FROM u) AS __rows_1 ORDER BY smart_llm(r)
"""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.calls.clauses import has_call, own_calls, refuse
from smartsql.sql.normalise.syntax.trees import every

_MOVED = ("order", "limit", "offset")


def plan_set_operations(tree: exp.Expr, names: Names) -> exp.Expr:
    """The query with such set operations in queries of their own.

    Raises:
        UnplannableCallError: columns of the same name, which such a query would rename.
    """
    for node in every(tree, exp.SetOperation):
        order = node.args.get("order")
        if order is None or not has_call(order):
            continue
        columns = names.columns(_without_order(node))
        if columns is None or len({name.lower() for name in columns}) != len(columns):
            raise refuse(
                own_calls(order)[0],
                "ORDER BY of a set operation",
                "Select the call as a column in a subquery around it and order by that column.",
                "its columns have no names of their own",
            )
        names.changed = True
        outer = exp.Select(expressions=[exp.Star()])
        for key in _MOVED:
            outer.set(key, node.args.get(key))
            node.set(key, None)
        parent = node.parent
        if parent is None:
            tree = outer
        else:
            node.replace(outer)
        alias = exp.TableAlias(this=exp.to_identifier(names.fresh("rows")))
        outer.set("from_", exp.From(this=exp.Subquery(this=node, alias=alias)))
    return tree


def _without_order(node: exp.SetOperation) -> exp.Expr:
    copy = node.copy()
    for key in _MOVED:
        copy.set(key, None)
    return copy
