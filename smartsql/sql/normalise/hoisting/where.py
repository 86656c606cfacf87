"""Calls in WHERE: their conditions go to QUALIFY, which runs after WHERE and may hold windows.

    SELECT id FROM t WHERE stars < 3 AND smart_llm(review) = 'negative'
    SELECT id FROM t WHERE stars < 3 QUALIFY smart_llm(review) = 'negative'

Cheap conditions stay, so the set of the call is what they let through. Where the SELECT has
aggregates, windows or other calls, which must see the filtered rows, the filter is nested.
"""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.analysis.conditions import by_effort, conjunction, set_where, split
from smartsql.sql.normalise.analysis.rows import can_stop
from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.binding.outputs import expand_aliases
from smartsql.sql.normalise.calls.clauses import is_aggregate, needs_lift, own_calls
from smartsql.sql.normalise.hoisting.nest import nest
from smartsql.sql.normalise.syntax.dialect import sql
from smartsql.sql.normalise.syntax.trees import own


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
