"""The order of the rules, and what happens to a statement around its query."""

from __future__ import annotations

from collections.abc import Callable

import duckdb
from sqlglot import exp
from sqlglot.errors import SqlglotError

from smartsql.errors import SmartSQLError, UnplannableCallError
from smartsql.sql.normalise.above import plan_above
from smartsql.sql.normalise.calls import (
    NAMES,
    check_literals,
    clause_of,
    is_call,
    is_native,
    own_calls,
    refuse,
    refuse_as_aggregate,
)
from smartsql.sql.normalise.correlated import plan_correlated
from smartsql.sql.normalise.dialect import output_names, parse, rewritten
from smartsql.sql.normalise.dots import plan_dots
from smartsql.sql.normalise.grouped import plan_keys
from smartsql.sql.normalise.guards import plan_guards
from smartsql.sql.normalise.having import plan_having
from smartsql.sql.normalise.inner import plan_inner
from smartsql.sql.normalise.joins import plan_join_conditions, plan_joins
from smartsql.sql.normalise.lift import plan_group, plan_lift
from smartsql.sql.normalise.limit import plan_limit
from smartsql.sql.normalise.nest import Names, binder, name_outputs
from smartsql.sql.normalise.origins import origin_of
from smartsql.sql.normalise.parameters import separated, spaced_parameters
from smartsql.sql.normalise.pivots import plan_pivots
from smartsql.sql.normalise.push import plan_push
from smartsql.sql.normalise.refusals import refuse_clause, refuse_hopeless, refuse_values
from smartsql.sql.normalise.setops import plan_set_operations
from smartsql.sql.normalise.sites import number_calls
from smartsql.sql.normalise.stars import expand_columns
from smartsql.sql.normalise.statements import Planner, plan_statement
from smartsql.sql.normalise.table_form import plan_table_form, table_calls
from smartsql.sql.normalise.text import call_texts, is_readable
from smartsql.sql.normalise.waves import plan_exists, plan_waves
from smartsql.sql.normalise.where import plan_where

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
        QueryError: part of a statement cannot be read.
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
    tree = _read(query)
    if tree is None:
        return query  # sqlglot cannot read it; DuckDB refuses calls in the wrong place itself
    calls = [node for node in tree.find_all(exp.Anonymous) if is_call(node)]
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
    if tree is not None:
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
    selects = list(tree.find_all(exp.Select))
    for select in sorted(selects, key=_depth, reverse=True):
        _plan_select(select, names)
    for call in tree.find_all(exp.Anonymous):
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
    if not own_calls(select):
        return
    refuse_hopeless(select, names)
    if not all(is_native(call, select) for call in own_calls(select)):
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
    for select in tree.find_all(exp.Select):
        around = select.parent
        while isinstance(around, (exp.SetOperation, exp.Subquery)):
            around = around.parent
        if around is None or isinstance(around, (exp.From, exp.Join, exp.CTE, exp.Lateral)):
            name_outputs(select, only_changed=True)
