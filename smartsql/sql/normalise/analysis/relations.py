"""What conditions say about one relation of a query, and what joins do to its rows."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlglot import exp

from smartsql.sql.normalise.analysis.conditions import conjunction, split
from smartsql.sql.normalise.binding.scopes import Resolver, is_local, is_plain_table, relations
from smartsql.sql.normalise.calls.clauses import has_call, is_aggregate
from smartsql.sql.normalise.syntax.trees import nodes

_VOLATILE = re.compile(r"random|uuid|nextval|current_query|setseed|txid|write_log", re.IGNORECASE)
_STRICT = (exp.Column, exp.Identifier, exp.DPipe, exp.Literal, exp.Cast, exp.DataType, exp.Paren)


def is_strict(call: exp.Expr) -> bool:
    """Whether the answer of a call is NULL where a column of its prompt is NULL, by its text."""
    prompt = call.expressions[0]
    return all(isinstance(node, _STRICT) for node in nodes(prompt)) and any(
        isinstance(node, exp.Column) for node in nodes(prompt)
    )


def may_be_missing(select: exp.Select, relation: exp.Expr, before: int | None = None) -> bool:
    """Whether an outer join fills the columns of a relation with NULL.

    Args:
        before: count only the first joins, as the condition of the next one sees them.
    """
    joins = (select.args.get("joins") or [])[:before]
    position = next(k for k, r in enumerate(relations(select)) if r is relation)
    for number, join in enumerate(joins, start=1):
        side = str(join.args.get("side") or "").upper()
        if number == position and side in {"LEFT", "FULL"}:
            return True
        if number > position and side in {"RIGHT", "FULL"}:
            return True
    return False


def conditions_on(
    conditions: Sequence[exp.Expr], relation: exp.Expr, resolver: Resolver
) -> list[exp.Expr]:
    """Those conditions that can be checked on the relation alone, any number of times."""
    return [c for c in conditions if is_repeatable(c) and is_local(c, relation, resolver)]


def reachable(
    conditions: Sequence[exp.Expr], relation: exp.Expr, resolver: Resolver
) -> list[exp.Expr]:
    """What equalities with columns of plain tables say about a relation: `key IN (SELECT ..)`."""
    found: list[exp.Expr] = []
    for written in conditions:
        condition = written.unnest()
        if not isinstance(condition, exp.EQ):
            continue
        for mine, theirs in (
            (condition.this, condition.expression),
            (condition.expression, condition.this),
        ):
            restriction = _membership(mine, theirs, relation, resolver)
            if restriction is not None:
                found.append(restriction)
                break
    return found


def _membership(
    mine: exp.Expr, theirs: exp.Expr, relation: exp.Expr, resolver: Resolver
) -> exp.Expr | None:
    if not isinstance(mine, exp.Column) or not isinstance(theirs, exp.Column):
        return None
    owner, other = resolver.owner(mine), resolver.owner(theirs)
    if owner is None or other is None or owner.relation is not relation:
        return None
    table = other.relation
    if table is None or table is relation or not is_plain_table(table):
        return None
    keys = exp.Select(expressions=[theirs.copy()], from_=exp.From(this=table.copy()))
    where = other.select.args.get("where")
    cheap, _ = split(where.this if where is not None else None)
    local = conditions_on(cheap, table, resolver)
    if local and not may_be_missing(other.select, table):
        keys.set("where", exp.Where(this=conjunction([c.copy() for c in local])))
    return exp.In(this=mine.copy(), query=exp.Subquery(this=keys))


def is_repeatable(condition: exp.Expr) -> bool:
    """Whether a condition says the same however often and wherever it is evaluated."""
    return not has_call(condition) and not any(
        isinstance(node, (exp.Select, exp.Window, exp.Lambda))
        or is_aggregate(node)
        or (isinstance(node, exp.Anonymous) and _VOLATILE.search(node.name))
        for node in nodes(condition)
    )
