"""Calls in WHERE: their conditions go to QUALIFY, which runs after WHERE and may hold windows.

    SELECT id FROM t WHERE stars < 3 AND smart_llm(review) = 'negative'
    SELECT id FROM t WHERE stars < 3 QUALIFY smart_llm(review) = 'negative'

Cheap conditions stay, so the set of the call is what they let through. Where the SELECT has
aggregates, windows or other calls, which must see the filtered rows, the filter is nested.
"""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.calls import (
    has_call,
    is_aggregate,
    needs_lift,
    own,
    own_calls,
)
from smartsql.sql.normalise.dialect import sql
from smartsql.sql.normalise.nest import Names, expand_aliases, nest


def split(condition: exp.Expr | None) -> tuple[list[exp.Expr], list[exp.Expr]]:
    """Conjuncts without a call, and those with one."""
    cheap: list[exp.Expr] = []
    smart: list[exp.Expr] = []
    stack = [condition] if condition is not None else []
    while stack:
        node = stack.pop()
        if isinstance(node, exp.And):
            stack += [node.expression, node.this]
        elif isinstance(node, exp.Paren) and isinstance(node.this, exp.And):
            stack.append(node.this)
        else:
            (smart if has_call(node) else cheap).append(node)
    return cheap, smart


def conjunction(conditions: list[exp.Expr]) -> exp.Expr | None:
    """The conditions joined by AND; None if there is none."""
    return exp.and_(*conditions, copy=False) if conditions else None


def set_where(select: exp.Select, conditions: list[exp.Expr]) -> None:
    """Make these the WHERE clause."""
    joined = conjunction(conditions)
    select.set("where", None if joined is None else exp.Where(this=joined))


def movable(select: exp.Select, clause: str, names: Names) -> tuple[list[exp.Expr], list[exp.Expr]]:
    """Conditions of WHERE or HAVING without a call, and with one; none where none can move."""
    found = select.args.get(clause)
    if found is None:
        return [], []
    found.set("this", expand_aliases(select, found.this, names))
    cheap, smart = split(found.this)
    if any(needs_lift(call, select) for c in smart for call in own_calls(c)):
        return [], []
    return cheap, smart


def add_to_qualify(select: exp.Select, conditions: list[exp.Expr]) -> None:
    """Make these conditions part of QUALIFY, before what it holds."""
    qualify = select.args.get("qualify")
    held = [qualify.this] if qualify is not None else []
    select.set("qualify", exp.Qualify(this=conjunction([*conditions, *held])))


def plan_where(select: exp.Select, names: Names) -> bool:
    """Move conditions on calls out of WHERE; True if something moved."""
    cheap, smart = movable(select, "where", names)
    if not smart:
        return False
    names.changed = True
    if _is_simple(select):
        set_where(select, cheap)
        add_to_qualify(select, smart)
        return True
    set_where(select, [])
    inside = {sql(call): call for condition in smart for call in own_calls(condition)}
    outside = {sql(call) for call in own_calls(select)}
    lifted = [call for text, call in inside.items() if text in outside]
    nest(select, names, lifted=lifted, where=conjunction(cheap), qualify=conjunction(smart))
    return True


def _is_simple(select: exp.Select) -> bool:
    """Whether nothing else in the query looks at more than one row, WHERE set aside."""
    if select.args.get("group") or select.args.get("having") or select.args.get("windows"):
        return False
    where = select.args["where"]
    filtered = {sql(call) for call in own_calls(where)}
    for node in own(select):
        if isinstance(node, exp.Window) or is_aggregate(node):
            return False
    others = [call for call in own_calls(select) if call.find_ancestor(exp.Where) is not where]
    return all(sql(call) in filtered and not needs_lift(call, select) for call in others)
