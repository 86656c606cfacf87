"""Early stop: LIMIT and EXISTS above a condition on answers ask in waves, until there is enough.

    SELECT id FROM t WHERE stars < 3 AND smart_llm(review) = 'angry' ORDER BY id LIMIT 3

The rows that cheap conditions let through are numbered in the order of the query. A recursive
WITH query takes the next rows, asks about them, and goes on while too few were found:

    rows AS MATERIALIZED (SELECT *, row_number() OVER (ORDER BY id) AS __at FROM ..)
    waves AS (SELECT 0 AS __upto, 0 AS __found, NULL AS __hits
        UNION ALL
        SELECT __upto, __found + len(__hits), __hits FROM (SELECT max(..), list({'at': __at,
            'a0': answer}) FILTER (answer = 'angry') .. FROM (the next rows, with their answers)))

The first wave has `FIRST_WAVE` rows, or twice as many as are wanted; each next one twice as many
rows as the last, so N rows make at most log2(N) waves, and at most one wave, which is about as
large as all before it, asks for more than a row-by-row evaluation would have. Among rows that the
order does not tell apart those stored first come first, as DuckDB's own LIMIT has it.

What is promised: DuckDB runs each wave as a set of its own, so each wave keeps delta and gamma for
its own rows, with a report of its own. Over w waves together, at most delta of all rows asked are
wrong with probability at least 1 - w (1 - gamma). As with every condition on answers this is about
the rows that were asked, those that the condition then left out too, and not about the share of
wrong ones among the rows returned.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from smartsql.errors import QueryError
from smartsql.sql.normalise.analysis.conditions import by_effort, conjunction, set_where, split
from smartsql.sql.normalise.analysis.rows import (
    OTHER_ROWS,
    can_stop,
    is_expanding,
    order_by_columns,
    wanted_rows,
)
from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.binding.outputs import expand_aliases
from smartsql.sql.normalise.calls.clauses import is_aggregate, is_call, own_calls
from smartsql.sql.normalise.hoisting.nest import nest
from smartsql.sql.normalise.pushdown.guards import guard_with
from smartsql.sql.normalise.syntax.dialect import key, parse, sql
from smartsql.sql.normalise.syntax.trees import own
from smartsql.sql.normalise.text.parameters import spaced_parameters

FIRST_WAVE = 16
"""Rows of the first wave, if not more are wanted."""
_TYPES = {"smart_llm": "VARCHAR", "smart_classify": "VARCHAR", "smart_filter": "BOOLEAN"}
"""Types of answers; a call of another type is asked about all its rows."""


def plan_exists(select: exp.Select, names: Names) -> None:
    """One row is enough for EXISTS, and no column of it is looked at."""
    if not isinstance(select.parent, exp.Exists) or not own_calls(select):
        return
    if any(select.args.get(k) for k in (*OTHER_ROWS, "qualify", "limit", "offset")) or any(
        isinstance(node, exp.Window) or is_aggregate(node) or is_expanding(node)
        for item in select.expressions
        for node in own(item)
    ):
        return
    where = select.args.get("where")
    if where is not None:
        where.set("this", expand_aliases(select, where.this, names))
    select.set("expressions", [exp.alias_(exp.Literal.number(1), "__c0")])
    select.set("order", None)
    select.set("limit", exp.Limit(expression=exp.Literal.number(1)))
    names.changed = names.spared = True


def plan_waves(select: exp.Select, names: Names) -> bool:
    """Ask about the conditions of a query in waves; True if they were rewritten."""
    if not can_stop(select):
        return False
    changed = names.changed
    conditions = []
    for clause in ("where", "qualify"):
        found = select.args.get(clause)
        if found is not None:
            conditions.append(expand_aliases(select, found.this.copy(), names))
    cheap, smart = split(conjunction([exp.paren(c) for c in conditions]))
    order = order_by_columns(select) if select.args.get("order") else None
    calls = [call for condition in smart for call in own_calls(condition)]
    if (
        not calls
        or (order is None and select.args.get("order"))
        or any(call.name.lower() not in _TYPES or _has_groups(call) for call in calls)
        or any(is_call(node) for call in calls for node in own(call) if node is not call)
    ):
        names.changed = changed
        return False
    names.spared = True
    select.set("qualify", None)
    set_where(select, [condition.copy() for condition in smart])
    nest(select, names, where=conjunction(cheap))
    _ask_in_waves(select, names)
    return True


def _has_groups(call: exp.Expr) -> bool:
    """Whether a call promises something within groups, of which a wave would see parts only."""
    named = [a for a in call.expressions if isinstance(a, (exp.PropertyEQ, exp.Kwarg))]
    return any(argument.name.lower() == "per" for argument in named)


def _ask_in_waves(select: exp.Select, names: Names) -> None:
    """Replace FROM and WHERE of a query over one relation by a recursive query."""
    wanted = wanted_rows(select)
    assert wanted is not None
    source = select.args["from_"].this
    alias = source.args["alias"].this
    order = order_by_columns(select) if select.args.get("order") else None
    _, smart = split(select.args["where"].this)
    select.set("where", None)
    answers: dict[str, tuple[str, exp.Expr]] = {}
    stages, conditions = _stages(smart, answers, names)
    for call in own_calls(select):
        if key(call) in answers:
            call.replace(exp.column(answers[key(call)][0]))
    query = _recursion(source, alias, order, stages, answers, conditions, wanted)
    hidden = [exp.to_identifier(name) for name in ("__at", *(name for name, _ in answers.values()))]
    for node in own(select):
        if isinstance(node, exp.Star) and not isinstance(node.parent, exp.Anonymous):
            node.set("except_", [*(node.args.get("except_") or []), *[h.copy() for h in hidden]])
    relation = exp.Subquery(this=query, alias=exp.TableAlias(this=alias.copy()))
    select.set("from_", exp.From(this=relation))


def _stages(
    smart: Sequence[exp.Expr], answers: dict[str, tuple[str, exp.Expr]], names: Names
) -> tuple[list[list[tuple[str, exp.Expr]]], list[exp.Expr]]:
    """The calls of each step, with their columns: the next step is asked where the last holds.

    Returns:
        The steps, and the conditions in terms of the columns, which are noted in `answers`.
    """
    stages = []
    passed: list[exp.Expr] = []
    for group in by_effort(smart):
        stage = []
        for call in [call for condition in group for call in own_calls(condition)]:
            if key(call) not in answers:
                answers[key(call)] = names.fresh("smart"), call.copy()
                asked = call.copy()
                if passed:
                    guard_with(asked, [condition.copy() for condition in passed])
                stage.append((answers[key(call)][0], asked))
        if stage:
            stages.append(stage)
        passed += [_answered(condition, answers) for condition in group]
    return stages, passed


def _answered(condition: exp.Expr, answers: dict[str, tuple[str, exp.Expr]]) -> exp.Expr:
    """A copy of a condition that refers to the columns of answers."""
    holder = exp.paren(condition)
    for call in own_calls(holder):
        call.replace(exp.column(answers[key(call)][0]))
    return holder


def _recursion(
    source: exp.Expr,
    alias: exp.Identifier,
    order: exp.Order | None,
    stages: list[list[tuple[str, exp.Expr]]],
    answers: dict[str, tuple[str, exp.Expr]],
    conditions: Sequence[exp.Expr],
    wanted: int,
) -> exp.Expr:
    """The rows for which the conditions hold, as many as are wanted, in the order of the query."""
    name = sql(alias)
    keys = ", ".join([*(sql(each) for each in (order.expressions if order else [])), "__stored"])
    fields = ", ".join(f"{column} {_TYPES[c.name.lower()]}" for column, c in answers.values())
    packed = ", ".join(f"{column} := {column}" for column, _ in answers.values())
    taken = ", ".join(f"__hit.{column} AS {column}" for column, _ in answers.values())
    upto = f"2 * __waves.__upto + {max(FIRST_WAVE, 2 * wanted)}"
    rows = (
        f"SELECT {name}.*, {upto} AS __next, __waves.__found AS __had FROM __waves "
        f"JOIN __rows AS {name} ON {name}.__at > __waves.__upto AND {name}.__at <= {upto} "
        f"WHERE __waves.__found < {wanted}"
    )
    for stage in stages:
        columns = ", ".join(f"{sql(call)} AS {column}" for column, call in stage)
        rows = f"SELECT *, {columns} FROM ({rows}) AS {name}"
    condition = " AND ".join(sql(each) for each in conditions)
    numbered = (
        "SELECT * EXCLUDE (__stored), row_number() OVER (ORDER BY "
        f"{keys}) AS __at FROM (SELECT *, row_number() OVER () AS __stored FROM {sql(source)}) "
        f"AS {name}"
    )
    first = f"SELECT 0::BIGINT, 0::BIGINT, NULL::STRUCT(__at BIGINT, {fields})[]"
    step = (
        "SELECT max(__next)::BIGINT AS __next, max(__had)::BIGINT AS __had, "
        f"list(struct_pack(__at := __at, {packed})) FILTER (WHERE {condition}) AS __list "
        f"FROM ({rows}) AS {name} HAVING count(*) > 0"
    )
    text = (
        f"WITH RECURSIVE __rows AS MATERIALIZED ({numbered}), "
        f"__waves(__upto, __found, __hits) AS ({first} UNION ALL "
        f"SELECT __next, __had + coalesce(len(__list), 0), __list FROM ({step})) "
        f"SELECT __rows.*, {taken} FROM (SELECT unnest(__hits) AS __hit FROM __waves) "
        f"JOIN __rows ON __rows.__at = __hit.__at ORDER BY __rows.__at LIMIT {wanted}"
    )
    query = parse(spaced_parameters(text))
    if query is None:
        raise QueryError(f"cannot read the query in waves: {text}")  # the other rules go on alone
    return query
