"""The order of the rules, and what happens to a statement around its query."""

from __future__ import annotations

import duckdb
from sqlglot import exp

from smartsql.errors import QueryError, UnplannableCallError
from smartsql.sql.normalise.calls import (
    check_literals,
    clause_of,
    is_call,
    is_native,
    own_calls,
    refuse,
)
from smartsql.sql.normalise.dialect import output_names, parse, same_query, sql
from smartsql.sql.normalise.having import plan_having
from smartsql.sql.normalise.joins import plan_joins
from smartsql.sql.normalise.lift import plan_group, plan_lift
from smartsql.sql.normalise.limit import plan_limit
from smartsql.sql.normalise.nest import Names, binder
from smartsql.sql.normalise.parameters import numbered_parameters, spaced_parameters
from smartsql.sql.normalise.refusals import refuse_clause, refuse_hopeless, refuse_values
from smartsql.sql.normalise.sites import number_calls
from smartsql.sql.normalise.statements import refuse_around, rewrite_change
from smartsql.sql.normalise.table_form import plan_table_form, table_calls
from smartsql.sql.normalise.text import (
    call_texts,
    is_readable,
    portion,
    statements,
)
from smartsql.sql.normalise.where import plan_where

MAX_STEPS = 100
"""Rules applied to one SELECT; each nests or moves at least one call."""


def normalise(text: str, con: duckdb.DuckDBPyConnection) -> str:
    """The text with every statement that needs it rewritten.

    Args:
        text: one or more statements.
        con: binds names of columns (and runs nothing) where the text alone does not tell them.

    Raises:
        UnplannableCallError: a call that no rewriting helps.
        ParameterError: delta or gamma written out of range.
        QueryError: part of a statement cannot be read.
    """
    spaced = spaced_parameters(text)
    if not is_readable(spaced):
        return text  # DuckDB says what is wrong with it
    planned = "".join(_statement(piece, con) for piece in statements(spaced))
    return text if planned == spaced else planned


def previewable(text: str) -> str:
    """The query of a statement, without what it would write.

    Raises:
        QueryError: not exactly one statement with a query in it.
    """
    pieces = [piece for piece in statements(spaced_parameters(text)) if piece.strip(" ;\n\t\r")]
    found = portion(pieces[0]) if len(pieces) == 1 else None
    if found is None:
        raise QueryError(
            "a preview needs exactly one statement that is or contains a query: SELECT, "
            "CREATE TABLE .. AS, CREATE VIEW .. AS, INSERT .. SELECT, COPY (..) TO, MERGE."
        )
    return found.query


def _statement(text: str, con: duckdb.DuckDBPyConnection) -> str:
    """One statement, rewritten if needed."""
    if not call_texts(text):
        return text
    found = portion(text)
    if found is None:
        return rewrite_change(text, lambda query: _query(query, con))
    refuse_around(found)
    numbered = portion(numbered_parameters(text))
    if numbered is None:
        raise QueryError(
            f"cannot find the query of {text.strip()[:200]!r} once its parameters have numbers. "
            f"Write $1, $2, .. instead of ? in it."
        )
    planned = _query(numbered.query, con)
    if planned == numbered.query:
        return text
    return f"{numbered.head}{planned}{numbered.tail}"


def _query(query: str, con: duckdb.DuckDBPyConnection) -> str:
    """A query, rewritten if needed."""
    tree = parse(query)
    if tree is None:
        return query  # sqlglot cannot read it; DuckDB refuses calls in the wrong place itself
    calls = [node for node in tree.find_all(exp.Anonymous) if is_call(node)]
    for call in [*calls, *table_calls(tree)]:
        check_literals(call)
    if isinstance(tree, exp.Values):
        raise refuse_values(calls[0])
    names = Names(binder(con))
    _plan(tree, names)
    if not names.changed:
        return query
    _check_faithful(query)
    _keep_output_names(query, tree)
    return sql(tree)


def _plan(tree: exp.Expr, names: Names) -> None:
    """Apply all rules, inner queries first."""
    plan_table_form(tree, names)
    selects = list(tree.find_all(exp.Select))
    for select in sorted(selects, key=_depth, reverse=True):
        _plan_select(select, names)
    for call in tree.find_all(exp.Anonymous):
        if is_call(call) and call.find_ancestor(exp.Select) is None:
            if call.find_ancestor(exp.Pivot):
                raise refuse(
                    call, "PIVOT", "Pivot a subquery: PIVOT (SELECT *, smart_llm(..) AS a ..) ON a"
                )
            raise refuse(
                call,
                "ORDER BY of a set operation",
                "Select the call as a column in a subquery around it and order by that column.",
            )
    number_calls(tree, names)


def _depth(node: exp.Expr) -> int:
    depth = 0
    while node.parent is not None:
        node, depth = node.parent, depth + 1
    return depth


def _plan_select(select: exp.Select, names: Names) -> None:
    """Apply the rules to one SELECT until every call stands where DuckDB can run it."""
    if not own_calls(select):
        return
    refuse_hopeless(select, names)
    plan_group(select, names)
    plan_joins(select, names)
    for _ in range(MAX_STEPS):
        if not (
            plan_where(select, names) or plan_lift(select, names) or plan_having(select, names)
        ):
            break
    for call in own_calls(select):
        if not is_native(call, select):
            raise refuse_clause(call, clause_of(call, select))
    plan_limit(select, names)


def _check_faithful(query: str) -> None:
    """Refuse a query that would not survive being written anew, whatever the rules do.

    Raises:
        UnplannableCallError: DuckDB reads the rewritten query differently.
    """
    tree = parse(query)
    assert tree is not None
    if not same_query(query, sql(tree)):
        call = next(iter(call_texts(query)))
        raise UnplannableCallError(
            call,
            "a query with syntax that cannot be rewritten safely",
            "Put the call where it needs no rewriting: in the SELECT list of a subquery, with "
            "conditions on its alias in QUALIFY or in the query around it.",
        )


def _keep_output_names(query: str, tree: exp.Expr) -> None:
    """Name the outputs of a rewritten query as DuckDB names those of the original."""
    first = tree
    while isinstance(first, (exp.SetOperation, exp.Subquery)):
        first = first.this
    names = output_names(query)
    if not isinstance(first, exp.Select) or len(names) != len(first.expressions):
        return
    now = output_names(sql(tree))
    for item, name, new in zip(list(first.expressions), names, now, strict=True):
        if name != new and "*" not in (name, new) and not isinstance(item, exp.Alias):
            item.replace(exp.alias_(item.copy(), name, quoted=True))
