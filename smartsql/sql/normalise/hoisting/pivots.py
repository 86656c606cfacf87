"""Calls in PIVOT and UNPIVOT: columns of a query below.

    PIVOT t ON smart_llm(r) USING count(*)
    PIVOT (SELECT * EXCLUDE (r), smart_llm(r) AS __pivot_1 FROM t) ON __pivot_1 USING count(*)

DuckDB groups by all columns that PIVOT does not mention, and the columns of the prompt are
mentioned; so they are left out, unless they are used elsewhere.
"""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.binding.outputs import default_name
from smartsql.sql.normalise.calls.clauses import is_aggregate, is_call, refuse
from smartsql.sql.normalise.syntax.dialect import key
from smartsql.sql.normalise.syntax.trees import every, own

_CLAUSES = ("expressions", "using", "fields", "group", "into")


def plan_pivots(tree: exp.Expr, names: Names) -> None:
    """Compute the calls of every PIVOT and UNPIVOT in a query below it.

    Raises:
        UnplannableCallError: a call over an aggregate.
    """
    for pivot in every(tree, exp.Pivot):
        roots = [root for clause in _CLAUSES for root in _roots(pivot, clause)]
        calls = [call for root in roots for call in _outer_calls(root)]
        if calls:
            names.changed = True
            for call in calls:
                if any(is_aggregate(node) for node in own(call)):
                    raise refuse(
                        call,
                        "PIVOT",
                        "Pivot first, and call smart_llm on the columns that come out.",
                        "its prompt is an aggregate itself",
                    )
            _name_results(pivot)
            _nest_source(pivot, calls, names)


def _roots(pivot: exp.Pivot, clause: str) -> list[exp.Expr]:
    value = pivot.args.get(clause)
    if isinstance(value, list):
        return value
    return [value] if isinstance(value, exp.Expr) else []


def _outer_calls(root: exp.Expr) -> list[exp.Expr]:
    """Calls that stand in no other call."""
    if is_call(root):
        return [root]
    if isinstance(root, (exp.Select, exp.SetOperation)):
        return []
    return [call for child in root.iter_expressions() for call in _outer_calls(child)]


def _name_results(pivot: exp.Pivot) -> None:
    """Give results the names that they have by their texts, which are about to change."""
    unpivot = bool(pivot.args.get("unpivot"))
    aggregates = _roots(pivot, "using") or ([] if unpivot else _roots(pivot, "expressions"))
    if pivot.args.get("fields") and unpivot:
        named = [item for field in pivot.args["fields"] for item in field.expressions]
    elif unpivot:
        named = _roots(pivot, "expressions")
    elif len(aggregates) > 1:
        named = aggregates
    else:
        return  # the name of a single aggregate does not show
    for item in list(named):
        if isinstance(item, (exp.Alias, exp.PivotAlias)) or not _outer_calls(item):
            continue
        columns = {column.name for column in every(item, exp.Column)}
        if unpivot and len(columns) != 1:
            raise refuse(
                _outer_calls(item)[0],
                "UNPIVOT",
                "Give it a name: UNPIVOT .. ON smart_llm(..) AS answer.",
                "it has no name for the column of names",
            )
        name = columns.pop() if unpivot else default_name(item)
        alias = exp.Alias(alias=exp.to_identifier(name, quoted=True))
        item.replace(alias)
        alias.set("this", item)


def _nest_source(pivot: exp.Pivot, calls: list[exp.Expr], names: Names) -> None:
    new = {key(call): names.fresh("pivot") for call in calls}
    texts = {key(call): call.copy() for call in calls}
    mentioned = {column.name.lower() for call in calls for column in every(call, exp.Column)}
    for call in calls:
        call.replace(exp.column(new[key(call)]))
    star = exp.Star()
    if not pivot.args.get("group"):
        used = {
            column.name.lower()
            for clause in _CLAUSES
            for root in _roots(pivot, clause)
            for column in every(root, exp.Column)
        }
        hidden = [exp.column(name, quoted=True) for name in sorted(mentioned - used)]
        if hidden:
            star.set("except_", hidden)
    columns = [exp.alias_(texts[text], name) for text, name in new.items()]
    inner = exp.Select(expressions=[star, *columns])
    source = pivot.this
    if source is not None:  # PIVOT t ON ..
        source.replace(exp.Subquery(this=inner))
        inner.set("from_", exp.From(this=source))
        return
    table = pivot.parent  # FROM t PIVOT (..)
    assert table is not None
    subquery = exp.Subquery(this=inner)
    table.replace(subquery)
    for part in ("pivots", "joins", "sample"):
        if table.args.get(part):
            subquery.set(part, table.args[part])
            table.set(part, None)
    if table.args.get("alias"):
        subquery.set("alias", table.args["alias"].copy())
    inner.set("from_", exp.From(this=table))
