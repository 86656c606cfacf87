"""Calls in the condition of a join.

In an inner join the condition is one of WHERE, and planned there. In another join it decides which
rows are matched, not which are kept, so it stays: a call that reads one side is computed with it.

    t AS a LEFT JOIN u AS b ON a.i = b.i AND b.k < 3 AND smart_llm(b.r) = 'x'
    t AS a LEFT JOIN (SELECT *, smart_llm(b.r) AS __ahead_1 FROM u AS b WHERE b.k < 3 AND
        b.i IN (SELECT a.i FROM t AS a)) AS b ON a.i = b.i AND b.k < 3 AND b.__ahead_1 = 'x'
"""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.analysis.conditions import conjunction, set_where, split
from smartsql.sql.normalise.analysis.relations import (
    conditions_on,
    is_strict,
    may_be_missing,
    reachable,
)
from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.binding.scopes import Resolver, relations
from smartsql.sql.normalise.calls.clauses import is_call, own_calls, refuse
from smartsql.sql.normalise.hoisting.ahead import Place, compute_ahead, same_calls
from smartsql.sql.normalise.syntax.trees import every

_OUTER = {"RIGHT", "FULL"}


def plan_join_conditions(root: exp.Expr, names: Names) -> None:
    """Compute calls in conditions of outer, semi, anti and ASOF joins with the side they read.

    Raises:
        UnplannableCallError: such a call reads both sides.
    """
    for select in every(root, exp.Select):
        _take_joins_out(select)
        for position, join in enumerate(select.args.get("joins") or []):
            if join.args.get("on") is None or not _must_stay(select, position):
                continue
            calls = [call for call in own_calls(join.args["on"]) if _is_outermost(call)]
            for same in same_calls(calls):
                resolver = Resolver(names)
                place = _place(same[0], select, position, resolver)
                if place is None:
                    scalar = exp.Subquery(this=exp.Select(expressions=[same[0].copy()]))
                    for call in same:
                        call.replace(scalar.copy())
                    names.changed = True
                else:
                    compute_ahead(same, place, names)


def _take_joins_out(select: exp.Select) -> None:
    """Make joins of a FROM clause that stands before SELECT joins of the query."""
    source = select.args.get("from_")
    if source is None:
        return
    joins = source.this.args.get("joins")
    if joins and any(is_call(node) for node in every(select, exp.Anonymous)):
        source.this.set("joins", None)
        select.set("joins", [*joins, *(select.args.get("joins") or [])])


def plan_joins(select: exp.Select, names: Names) -> bool:
    """Move conditions on calls from ON of inner joins to WHERE; True if something moved."""
    moved: list[exp.Expr] = []
    for join in select.args.get("joins") or []:
        cheap, smart = split(join.args.get("on"))
        if smart:
            moved += smart
            join.set("on", conjunction(cheap) or exp.true())
    if moved:
        names.changed = True
        where = select.args.get("where")
        set_where(select, [*([exp.paren(where.this)] if where is not None else []), *moved])
    return bool(moved)


def _kind(join: exp.Expr) -> set[str]:
    words = " ".join(str(join.args.get(k) or "") for k in ("method", "side", "kind"))
    return set(words.upper().split()) - {"INNER", "OUTER"}


def _must_stay(select: exp.Select, position: int) -> bool:
    """Whether the condition of a join cannot be one of WHERE."""
    joins = select.args["joins"]
    later = {str(other.args.get("side") or "").upper() for other in joins[position + 1 :]}
    return bool(_kind(joins[position]) or later & _OUTER)


def _is_outermost(call: exp.Expr) -> bool:
    """Whether a call stands in no other call and in no lambda."""
    node = call.parent
    while node is not None and not isinstance(node, exp.Join):
        if is_call(node) or isinstance(node, (exp.Lambda, exp.Comprehension)):
            return False
        node = node.parent
    return True


def _place(call: exp.Expr, select: exp.Select, position: int, resolver: Resolver) -> Place | None:
    """The side that a call reads, with the rows of it that matter; None if it reads none.

    Raises:
        UnplannableCallError: it reads several relations, or one that may be missing.
    """
    join = select.args["joins"][position]
    owners = [owner for _, owner in resolver.owners(call)]
    if not owners:
        return None
    relation = owners[0].relation if owners[0] is not None else None
    if relation is None or any(
        owner is None or owner.select is not select or owner.relation is not relation
        for owner in owners
    ):
        raise _both_sides(call, join)
    if may_be_missing(select, relation, before=position) and not is_strict(call):
        raise refuse(
            call,
            f"the condition of {_name(join)}, over rows that an outer join may have filled",
            "Compute it after that join: FROM (SELECT .., smart_llm(..) AS answer FROM .. LEFT "
            "JOIN .. ON ..) q LEFT JOIN .. ON q.answer = ...",
            "it also has to answer rows that exist only after the join before it",
        )
    cheap, _ = split(join.args["on"])
    local = conditions_on(cheap, relation, resolver)
    if "ASOF" not in _kind(join):
        local += reachable(cheap, relation, resolver)
    else:
        local = []
    if _drops(select, join, position, relation):
        return Place(select, relation, drop=local)
    return Place(select, relation, skip=local)


def _drops(select: exp.Select, join: exp.Expr, position: int, relation: exp.Expr) -> bool:
    """Whether rows of a relation that fail the condition of a join are not in its result."""
    kind = _kind(join)
    if join.this is relation:
        return not kind & {"RIGHT", "FULL", "ASOF"}
    alone = position == 0 and relations(select)[0] is relation
    return alone and not kind & {"LEFT", "FULL", "ANTI", "ASOF"}


def _name(join: exp.Expr) -> str:
    words = [str(join.args.get(k) or "") for k in ("method", "side", "kind")]
    return " ".join([*filter(None, words), "JOIN"]).upper()


def _both_sides(call: exp.Expr, join: exp.Expr) -> Exception:
    return refuse(
        call,
        f"the condition of {_name(join)}, reading more than one side",
        "Find the matching rows with an inner join first, WITH m AS (SELECT a.id AS left_id, b.* "
        "FROM a JOIN b ON .. WHERE smart_llm(..) = ..), and join m: a LEFT JOIN m ON "
        "m.left_id = a.id.",
        "it decides which rows are joined, and its inputs are pairs that exist only once joined",
    )
