"""Places in a SELECT where no rewriting helps: refused before anything is asked."""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.calls import (
    CLAUSES,
    clause_of,
    in_expression,
    own,
    own_calls,
    refuse,
)
from smartsql.sql.normalise.nest import Names, aliases_of


def refuse_hopeless(select: exp.Select, names: Names) -> None:
    """Refuse calls in lambdas, table functions, PIVOT, LIMIT and correlated subqueries.

    Raises:
        UnplannableCallError: with a rewrite that works.
    """
    for call in own_calls(select):
        if (
            call.find_ancestor(exp.Lambda, exp.Comprehension, exp.Select).__class__
            is not exp.Select
        ):
            raise refuse(
                call,
                "a lambda",
                "Unnest the list in a subquery, call smart_llm on its elements there, and "
                "collect the answers again with list(..).",
            )
        clause = clause_of(call, select)
        if call.find_ancestor(exp.Values, exp.Select).__class__ is exp.Values:
            raise refuse_values(call)
        if clause in {"from_", "laterals", "pivots", "sample"} or (
            clause == "joins" and not _in_condition(call)
        ):
            raise refuse(
                call,
                CLAUSES[clause] if clause != "joins" else "FROM",
                "Compute it in WITH q AS (SELECT .., smart_llm(..) AS answer FROM ..) and use "
                "q.answer here.",
            )
        if clause in {"limit", "offset"}:
            raise refuse(
                call, CLAUSES[clause], "Read the answer first and write the number of rows."
            )
    if own_calls(select):
        _refuse_correlated(select, names)


def refuse_values(call: exp.Expr) -> Exception:
    """The error for a call in VALUES."""
    return refuse(
        call, "VALUES", "Use SELECT: SELECT smart_llm(..), or FROM (VALUES (..)) v(x) SELECT .."
    )


def refuse_clause(call: exp.Expr, clause: str) -> Exception:
    """The error for a call that no rule moved out of a clause."""
    rewrite = "Compute it in a subquery and use its alias here."
    if clause == "distinct":
        rewrite = (
            "Compute it in a subquery: SELECT DISTINCT ON (answer) .. FROM "
            "(SELECT *, smart_llm(..) AS answer FROM ..)."
        )
    return refuse(call, CLAUSES.get(clause, clause), rewrite)


def _in_condition(call: exp.Expr) -> bool:
    node: exp.Expr = call
    while node.parent is not None and not isinstance(node.parent, exp.Join):
        node = node.parent
    return node.arg_key == "on"


def _refuse_correlated(select: exp.Select, names: Names) -> None:
    """Refuse a query with a call if it reads a column of a query around it."""
    if not in_expression(select):
        return
    inside = _relations(select)
    outside: set[str] = set()
    parent = select.parent
    while parent is not None:
        if isinstance(parent, exp.Select):
            outside |= _relations(parent)
        parent = parent.parent
    offered = names.from_columns(select)
    hidden = (offered or set()) | aliases_of(select).keys() | inside
    for node in own(select):
        if isinstance(node, exp.Column) and not isinstance(node.this, exp.Star):
            name = (node.table or node.name).lower()
            foreign = offered is not None and name not in hidden
            if foreign or (node.table and name in outside and name not in inside):
                call = own_calls(select)[0]
                raise refuse(
                    call,
                    f"a subquery correlated by {node.sql(dialect='duckdb')}",
                    "Compute the call for all rows in WITH q AS (SELECT .., smart_llm(..) AS "
                    "answer FROM ..) and join q, or refer to q in the subquery.",
                )


def _relations(select: exp.Select) -> set[str]:
    """Names of the relations in FROM, in lower case."""
    found = set()
    for key in ("from_", "joins", "laterals"):
        parts = select.args.get(key)
        for part in parts if isinstance(parts, list) else [parts] if parts else []:
            for node in own(part):
                if isinstance(node, (exp.Table, exp.Subquery, exp.Lateral, exp.Unnest)):
                    found.add(node.alias_or_name.lower())
    return found - {""}
