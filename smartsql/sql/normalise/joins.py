"""Calls in the condition of an inner join: a condition of WHERE, where they can be planned."""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.calls import own_calls, refuse
from smartsql.sql.normalise.nest import Names
from smartsql.sql.normalise.where import conjunction, set_where, split

_OUTER = {"RIGHT", "FULL"}


def plan_joins(select: exp.Select, names: Names) -> bool:
    """Move conditions on calls from ON to WHERE; True if something moved.

    Raises:
        UnplannableCallError: an outer join, whose unmatched rows WHERE would lose.
    """
    joins = select.args.get("joins") or []
    moved: list[exp.Expr] = []
    for position, join in enumerate(joins):
        condition = join.args.get("on")
        cheap, smart = split(condition)
        if not smart:
            continue
        kind = " ".join(str(join.args.get(k) or "") for k in ("method", "side", "kind")).split()
        later = {str(other.args.get("side") or "").upper() for other in joins[position + 1 :]}
        if {word.upper() for word in kind} - {"INNER"} or later & _OUTER:
            name = " ".join([*kind, "JOIN"]).upper() if kind else "a join below an outer join"
            raise refuse(
                own_calls(smart[0])[0],
                f"the condition of {name}",
                "Compute the call in a subquery of the table it reads, "
                "JOIN (SELECT *, smart_llm(..) AS answer FROM ..) s ON s.answer = .., instead.",
            )
        moved += smart
        join.set("on", conjunction(cheap) or exp.true())
    if moved:
        names.changed = True
        where = select.args.get("where")
        set_where(select, [*([exp.paren(where.this)] if where is not None else []), *moved])
    return bool(moved)
