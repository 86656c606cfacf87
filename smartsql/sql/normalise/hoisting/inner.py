"""Windows and unnest(..) in a prompt: computed one query below, since a call is a window itself.

SELECT smart_llm(lag(r) OVER (ORDER BY i)) FROM t
SELECT smart_llm(__w_1) FROM (SELECT *, lag(r) OVER (ORDER BY i) AS __w_1 FROM t) AS t
"""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.analysis.conditions import conjunction, set_where, split
from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.binding.outputs import expand_aliases
from smartsql.sql.normalise.calls.clauses import is_aggregate, is_call, own_calls
from smartsql.sql.normalise.hoisting.grouped import nest_groups
from smartsql.sql.normalise.hoisting.nest import nest
from smartsql.sql.normalise.syntax.dialect import key
from smartsql.sql.normalise.syntax.trees import own

_UNNEST = frozenset({"unnest", "generate_subscripts"})


def plan_inner(select: exp.Select, names: Names) -> bool:
    """Nest windows and unnest(..) that stand in prompts; True if there were any."""
    found = [
        node
        for call in own_calls(select)
        for node in own(call)
        if node is not call and (_is_window(node) or _is_unnest(node))
    ]
    found = [node for node in found if not any(is_call(inner) for inner in own(node))]
    if not found:
        return False
    if select.args.get("group") or any(is_aggregate(node) for node in own(select)):
        nest_groups(select, names)
        return True
    if any(
        _is_unnest(node) for node in found
    ):  # those side by side go through their lists together
        found = [node for item in select.expressions for node in own(item) if _is_unnest(node)]
    where = select.args.get("where")
    cheap, smart = split(where.this if where is not None else None)
    set_where(select, smart)
    cheap = [expand_aliases(select, condition, names) for condition in cheap]
    lifted = list({key(node): node for node in found}.values())
    nest(select, names, lifted=lifted, where=conjunction(cheap))
    return True


def _is_window(node: exp.Expr) -> bool:
    return isinstance(node, exp.Window) and node.arg_key != "windows"


def _is_unnest(node: exp.Expr) -> bool:
    return isinstance(node, exp.Unnest) or (
        isinstance(node, exp.Anonymous) and node.name.lower() in _UNNEST
    )
