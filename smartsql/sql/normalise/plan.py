"""The order of the rules, and what happens to a statement around its query."""

from __future__ import annotations

import sys
from collections.abc import Callable

import duckdb
from sqlglot import exp
from sqlglot.errors import SqlglotError

from smartsql.errors import QueryError, SmartSQLError, UnplannableCallError
from smartsql.sql.normalise.binding.names import Names, binder
from smartsql.sql.normalise.binding.outputs import name_outputs
from smartsql.sql.normalise.binding.stars import expand_columns
from smartsql.sql.normalise.calls.clauses import (
    NAMES,
    check_literals,
    clause_of,
    is_call,
    is_native,
    own_calls,
    refuse,
    refuse_as_aggregate,
    table_calls,
)
from smartsql.sql.normalise.hoisting.correlated import plan_correlated
from smartsql.sql.normalise.hoisting.grouped import plan_keys
from smartsql.sql.normalise.hoisting.having import plan_having
from smartsql.sql.normalise.hoisting.inner import plan_inner
from smartsql.sql.normalise.hoisting.joins import plan_join_conditions, plan_joins
from smartsql.sql.normalise.hoisting.lift import plan_group, plan_lift
from smartsql.sql.normalise.hoisting.pivots import plan_pivots
from smartsql.sql.normalise.hoisting.setops import plan_set_operations
from smartsql.sql.normalise.hoisting.table_form import plan_table_form
from smartsql.sql.normalise.hoisting.where import plan_where
from smartsql.sql.normalise.pushdown.above import plan_above
from smartsql.sql.normalise.pushdown.guards import plan_guards
from smartsql.sql.normalise.pushdown.limit import plan_limit
from smartsql.sql.normalise.pushdown.push import plan_push
from smartsql.sql.normalise.pushdown.waves import plan_exists, plan_waves
from smartsql.sql.normalise.refusals import refuse_clause, refuse_hopeless, refuse_values
from smartsql.sql.normalise.sites import number_calls
from smartsql.sql.normalise.statements import Planner, plan_statement
from smartsql.sql.normalise.syntax.dialect import parse
from smartsql.sql.normalise.syntax.dots import plan_dots
from smartsql.sql.normalise.syntax.engine import output_names
from smartsql.sql.normalise.syntax.origins import origin_of
from smartsql.sql.normalise.syntax.proof import rewritten
from smartsql.sql.normalise.syntax.trees import every
from smartsql.sql.normalise.text.parameters import separated, spaced_parameters
from smartsql.sql.normalise.text.words import call_texts, is_readable

MAX_STEPS = 100
"""Rules applied to one SELECT; each nests or moves at least one call."""


def normalise(
    text: str,
    con: duckdb.DuckDBPyConnection,
    written_out: Callable[[str], str] = lambda query: query,
) -> str:
    """The text with every statement that needs it rewritten.

    Args:
        text: one or more statements.
        con: binds names of columns (and runs nothing) where the text alone does not tell them.
        written_out: a query with the macros and views that lead to calls written out, for
            statements that change rows; in others they are expected to be written out already.

    Raises:
        UnplannableCallError: a call that no rewriting helps.
        ParameterError: delta or gamma written out of range.
        QueryError: part of a statement cannot be read, or is nested too deeply.
    """
    if not is_readable(spaced_parameters(text)):
        return text  # DuckDB says what is wrong with it
    planner = Planner(lambda query: _query(query, con), binder(con), written_out)
    return "".join(_statement(piece, planner) for piece in separated(text))


def _statement(text: str, planner: Planner) -> str:
    """One statement, rewritten if needed."""
    spaced = spaced_parameters(text)
    planned = plan_statement(spaced, planner)
    return text if planned == spaced else planned


def _query(query: str, con: duckdb.DuckDBPyConnection) -> str:
    """A query, rewritten if needed."""
    try:
        return _planned_query(query, con)
    except RecursionError as error:
        raise QueryError(
            "cannot plan the smart calls of a query whose expressions are nested, or chained by "
            f"operators, some {sys.getrecursionlimit()} deep. Write `x IN (..)` for `x = .. OR "
            "x = ..`, or put the call into a subquery without that expression."
        ) from error


def _planned_query(query: str, con: duckdb.DuckDBPyConnection) -> str:
    """A query after all rules; if those that only spare questions fail, without these."""
    tree = _read(query)
    if tree is None:
        return query  # sqlglot cannot read it; DuckDB refuses calls in the wrong place itself
    calls = [node for node in every(tree, exp.Anonymous) if is_call(node)]
    for call in [*calls, *table_calls(tree)]:
        refuse_as_aggregate(call)
        check_literals(call)
    if isinstance(tree, exp.Values):
        raise refuse_values(calls[0])
    planned = _economical(query, tree, Names(binder(con)))
    if planned is None:
        tree = _read(query)
        assert tree is not None
        planned = _planned(query, tree, Names(binder(con), economical=False))
    return planned


def _read(query: str) -> exp.Expr | None:
    tree = parse(query)
    if tree is not None and "." in query:
        plan_dots(tree, NAMES)
    return tree


def _economical(query: str, tree: exp.Expr, names: Names) -> str | None:
    """The query after all rules; None if one that only spares questions got into trouble."""
    try:
        planned = _planned(query, tree, names)
    except (SmartSQLError, SqlglotError):
        return None
    if names.spared:
        columns, expected = names.columns(tree), output_names(query)
        if columns is None or ("*" not in expected and columns != expected):
            return None
    return planned


def _planned(query: str, tree: exp.Expr, names: Names) -> str:
    """The query after the rules that `names` allows; `tree` is changed."""
    root = origin_of(tree)
    tree = plan_set_operations(tree, names)
    _plan(tree, names)
    if not names.changed:
        return query
    _keep_output_names(tree)
    planned = rewritten(query, tree, root)
    if planned is None:
        raise UnplannableCallError(
            next(iter(call_texts(query))),
            "a query with syntax that cannot be rewritten safely",
            "Put the call where it needs no rewriting: in the SELECT list of a subquery, with "
            "conditions on its alias in QUALIFY or in the query around it.",
        )
    return planned


def _plan(tree: exp.Expr, names: Names) -> None:
    """Apply all rules, inner queries first."""
    if names.economical:
        plan_push(tree, names)
    plan_keys(tree, names)
    plan_table_form(tree, names)
    plan_pivots(tree, names)
    plan_join_conditions(tree, names)
    plan_correlated(tree, names)
    selects = every(tree, exp.Select)
    for select in sorted(selects, key=_depth, reverse=True):
        _plan_select(select, names)
    for call in every(tree, exp.Anonymous):
        if is_call(call) and call.find_ancestor(exp.Select) is None:
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
    calls = own_calls(select)
    if not calls:
        return
    refuse_hopeless(select, names)
    if not all(is_native(call, select) for call in calls):
        expand_columns(select, names)
    if names.economical:
        plan_exists(select, names)
        plan_guards(select, names)
    plan_group(select, names)
    plan_joins(select, names)
    if names.economical:
        plan_waves(select, names)
    for _ in range(MAX_STEPS):
        if not (
            plan_where(select, names)
            or plan_inner(select, names)
            or plan_lift(select, names)
            or plan_having(select, names)
        ):
            break
    for call in own_calls(select):
        if not is_native(call, select):
            raise refuse_clause(call, clause_of(call, select))
    if names.economical and not plan_limit(select, names) and plan_above(select, names):
        plan_waves(select, names)


def _keep_output_names(tree: exp.Expr) -> None:
    """Name the outputs of rewritten queries as DuckDB names those of the original.

    Of queries in expressions no one reads the names.
    """
    for select in every(tree, exp.Select):
        around = select.parent
        while isinstance(around, (exp.SetOperation, exp.Subquery)):
            around = around.parent
        if around is None or isinstance(around, (exp.From, exp.Join, exp.CTE, exp.Lateral)):
            name_outputs(select, only_changed=True)
