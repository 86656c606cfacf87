"""Places in a SELECT where no rewriting helps: refused before anything is asked."""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.calls.clauses import (
    CLAUSES,
    clause_of,
    depends_on_lambda,
    own_calls,
    refuse,
)
from smartsql.sql.normalise.hoisting.correlated import refuse_correlated


def refuse_hopeless(select: exp.Select, names: Names) -> None:
    """Refuse calls in lambdas, table functions, PIVOT, LIMIT and correlated subqueries.

    Raises:
        UnplannableCallError: with a rewrite that works.
    """
    calls = own_calls(select)
    for call in calls:
        if depends_on_lambda(call, select):
            raise refuse(
                call,
                "a lambda",
                "Unnest the list in a subquery, call smart_llm on its elements there, and "
                "collect the answers again with list(..).",
                "DuckDB allows no window in it, so its inputs cannot be collected first",
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
                "Compute it in WITH q AS (SELECT .., smart_llm(..) AS answer FROM ..) and read "
                "q.answer beside q: FROM q, range(length(q.answer)).",
                "what FROM reads must be known before any row is",
            )
        if clause in {"limit", "offset"}:
            raise refuse(
                call,
                CLAUSES[clause],
                f"Make it a query: {CLAUSES[clause]} (SELECT length(smart_llm(..))).",
                "it must be known before any row is read",
            )
    if calls:
        refuse_correlated(select, names)


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
