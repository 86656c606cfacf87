"""Calls in WHERE: their conditions go to QUALIFY, which runs after WHERE and may hold windows.

    SELECT id FROM t WHERE stars < 3 AND smart_llm(review) = 'negative'
    SELECT id FROM t WHERE stars < 3 QUALIFY smart_llm(review) = 'negative'

Cheap conditions stay, so the set of the call is what they let through. Where the SELECT has
aggregates, windows or other calls, which must see the filtered rows, the filter is nested.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from smartsql.sql.normalise.calls import (
    has_call,
    is_aggregate,
    needs_lift,
    own,
    own_calls,
)
from smartsql.sql.normalise.cheap import is_total
from smartsql.sql.normalise.dialect import key, sql
from smartsql.sql.normalise.limit import can_stop
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
    steps = by_effort(smart) if names.economical and not can_stop(select) else [smart]
    if len(steps) > 1:
        names.spared = True
        set_where(select, [condition for step in steps[1:] for condition in step])
        _nest_filtered(select, names, cheap, steps[0])
        return True
    if _is_simple(select):
        set_where(select, cheap)
        add_to_qualify(select, smart)
        return True
    set_where(select, [])
    _nest_filtered(select, names, cheap, smart)
    return True


def by_effort(smart: Sequence[exp.Expr]) -> list[list[exp.Expr]]:
    """Conditions on answers in the order in which to ask: those with fewer calls first.

    Conditions on the same calls belong to one step. As long as one of them could raise, the order
    of writing is kept: the earlier ones may be there to prevent that.
    """
    remaining = list(smart)
    free = all(_is_total(condition) for condition in smart)
    known: set[str] = set()
    steps: list[list[exp.Expr]] = []
    while remaining:
        first = min(remaining, key=lambda c: len(_texts(c) - known)) if free else remaining[0]
        known |= _texts(first)
        step: list[exp.Expr] = []
        for condition in remaining:
            if _texts(condition) <= known:
                step.append(condition)
            elif not free:
                break
        steps.append(step)
        remaining = [c for c in remaining if not any(c is done for done in step)]
    return steps


def _texts(condition: exp.Expr) -> set[str]:
    return {key(call) for call in own_calls(condition)}


def _is_total(condition: exp.Expr) -> bool:
    """Whether a condition cannot raise, whatever the answers are."""
    answered = exp.paren(condition)
    for call in own_calls(answered):
        if call.parent is not None:
            call.replace(exp.Null())
    return is_total(answered)


def _nest_filtered(
    select: exp.Select, names: Names, cheap: list[exp.Expr], smart: list[exp.Expr]
) -> None:
    """Filter in a query of its own; answers that are read outside are passed on."""
    inside = {sql(call): call for condition in smart for call in own_calls(condition)}
    outside = {sql(call) for call in own_calls(select)}
    lifted = [call for text, call in inside.items() if text in outside]
    nest(select, names, lifted=lifted, where=conjunction(cheap), qualify=conjunction(smart))


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
