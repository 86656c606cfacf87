"""Calls where only a column may stand: computed one query below.

This is for calls in GROUP BY, in arguments of aggregates and windows, in FILTER, and in prompts
of other calls. The innermost come first, so k calls around each other become k stacked barriers.
"""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.analysis.conditions import conjunction, set_where, split
from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.binding.outputs import aliases_of, expand_aliases
from smartsql.sql.normalise.binding.stars import expand_stars
from smartsql.sql.normalise.calls.clauses import (
    has_call,
    is_aggregate,
    is_call,
    needs_lift,
    own_calls,
    refuse,
)
from smartsql.sql.normalise.hoisting.grouped import nest_groups, write_all_out
from smartsql.sql.normalise.hoisting.nest import nest
from smartsql.sql.normalise.syntax.dialect import key
from smartsql.sql.normalise.syntax.trees import own


def plan_group(select: exp.Select, names: Names) -> None:
    """Write GROUP BY ALL, positions and aliases out where they mean a call."""
    group = select.args.get("group")
    if group is None:
        return
    having = select.args.get("having")
    asks = any(has_call(item) for item in select.expressions)
    if group.args.get("all") and (asks or (having is not None and has_call(having))):
        if not expand_stars(select, names):
            raise refuse(
                own_calls(select)[0],
                "a query with * and GROUP BY ALL",
                "Name the columns instead of *.",
                "the columns that * stands for cannot be told from the text",
            )
        write_all_out(select)
        names.changed = True
        return
    if not asks:
        return
    expand_aliases(select, group, names)
    for item in list(group.expressions):
        position = int(item.this) if isinstance(item, exp.Literal) and item.this.isdigit() else 0
        if 1 <= position <= len(select.expressions):
            meaning = select.expressions[position - 1].unalias()
            if has_call(meaning):
                item.replace(meaning.copy())
                names.changed = True


def plan_lift(select: exp.Select, names: Names) -> bool:
    """Nest the innermost calls that stand where only a column may; True if there were any.

    Raises:
        UnplannableCallError: such a call over an aggregate of the same query.
    """
    _expand_prompts(select, names)
    lifted = [
        call
        for call in own_calls(select)
        if needs_lift(call, select) and not any(is_call(n) for n in own(call) if n is not call)
    ]
    if not lifted:
        return False
    for call in lifted:
        if any(is_aggregate(node) for node in own(call)):
            _refuse_within_aggregate(call)
            nest_groups(select, names)
            return True
    where = select.args.get("where")
    cheap, smart = split(where.this if where is not None else None)
    set_where(select, smart)
    cheap = [expand_aliases(select, condition, names) for condition in cheap]
    nest(select, names, lifted=_distinct(lifted), where=conjunction(cheap))
    return True


def _refuse_within_aggregate(call: exp.Expr) -> None:
    """Refuse a call over an aggregate inside another aggregate, as DuckDB does."""
    node = call.parent
    while node is not None and not isinstance(node, exp.Select):
        if is_aggregate(node) or isinstance(node, exp.Group):
            raise refuse(
                call,
                "an aggregate or GROUP BY",
                "Aggregate in a subquery and call smart_llm on its result.",
                "its prompt is an aggregate itself",
            )
        node = node.parent


def _expand_prompts(select: exp.Select, names: Names) -> None:
    """Write aliases of calls out where a call, an aggregate or a window refers to them."""
    if not any(has_call(meaning) for meaning in aliases_of(select).values()):
        return
    for node in own(select):
        if is_call(node) or is_aggregate(node) or isinstance(node, exp.Window):
            for argument in list(node.iter_expressions()):
                if any(isinstance(inner, exp.Column) for inner in own(argument)):
                    _expand_if_call(select, argument, names)


def _expand_if_call(select: exp.Select, argument: exp.Expr, names: Names) -> None:
    known = aliases_of(select)
    used = {
        node.name.lower()
        for node in own(argument)
        if isinstance(node, exp.Column) and not node.table
    }
    inside = argument.find_ancestor(exp.Alias)
    meant = {
        name
        for name in used & known.keys()
        if has_call(known[name]) and (inside is None or inside.alias.lower() != name)
    }
    if not meant:
        return
    offered = names.from_columns(select)
    if offered is None or meant & offered:
        return
    for node in own(argument):
        if isinstance(node, exp.Column) and not node.table and node.name.lower() in meant:
            names.changed = True
            node.replace(known[node.name.lower()].copy())


def _distinct(calls: list[exp.Expr]) -> list[exp.Expr]:
    return list({key(call): call for call in calls}.values())
