"""Calls in HAVING: their conditions go to QUALIFY, which runs after HAVING."""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.calls import needs_lift, own, own_calls, refuse
from smartsql.sql.normalise.nest import Names, expand_aliases
from smartsql.sql.normalise.where import conjunction, split


def plan_having(select: exp.Select, names: Names) -> bool:
    """Move conditions on calls out of HAVING; True if something moved.

    Raises:
        UnplannableCallError: the query has windows, which would see too many groups.
    """
    having = select.args.get("having")
    if having is None:
        return False
    having.set("this", expand_aliases(select, having.this, names))
    cheap, smart = split(having.this)
    if not smart or any(needs_lift(call, select) for c in smart for call in own_calls(c)):
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
    qualify = select.args.get("qualify")
    conditions = [*smart, qualify.this] if qualify is not None else smart
    select.set("qualify", exp.Qualify(this=conjunction(conditions)))
    return True
