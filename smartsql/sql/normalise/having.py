"""Calls in HAVING: their conditions go to QUALIFY, which runs after HAVING."""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.calls import own, own_calls, refuse
from smartsql.sql.normalise.nest import Names
from smartsql.sql.normalise.where import add_to_qualify, conjunction, movable


def plan_having(select: exp.Select, names: Names) -> bool:
    """Move conditions on calls out of HAVING; True if something moved.

    Raises:
        UnplannableCallError: the query has windows, which would see too many groups.
    """
    cheap, smart = movable(select, "having", names)
    if not smart:
        return False
    if any(isinstance(node, exp.Window) for node in own(select)):
        raise refuse(
            own_calls(smart[0])[0],
            "HAVING of a query with window functions",
            "Group in a subquery, filter there with QUALIFY smart_llm(..) = .., and compute the "
            "windows outside.",
        )
    names.changed = True
    rest = conjunction(cheap)
    select.set("having", None if rest is None else exp.Having(this=rest))
    add_to_qualify(select, smart)
    return True
