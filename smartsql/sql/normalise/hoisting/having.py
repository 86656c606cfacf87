"""Calls in HAVING: their conditions go to QUALIFY, which runs after HAVING."""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.analysis.conditions import conjunction
from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.hoisting.grouped import nest_groups
from smartsql.sql.normalise.hoisting.where import add_to_qualify, movable
from smartsql.sql.normalise.syntax.trees import own


def plan_having(select: exp.Select, names: Names) -> bool:
    """Move conditions on calls out of HAVING; True if something moved.

    Raises:
        UnplannableCallError: a query with windows whose groups cannot be nested.
    """
    cheap, smart = movable(select, "having", names)
    if not smart:
        return False
    if any(isinstance(node, exp.Window) for node in own(select)):
        nest_groups(select, names)  # windows must not see the groups that an answer drops
        return True
    names.changed = True
    rest = conjunction(cheap)
    select.set("having", None if rest is None else exp.Having(this=rest))
    add_to_qualify(select, smart)
    return True
