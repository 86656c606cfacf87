"""A call computed ahead over several relations: their join becomes one query.

    FROM u JOIN s ON s.id = u.i WHERE u.i = t.i AND smart_llm(s.x || u.r) > '3'
    FROM (SELECT u.i AS __c0, smart_llm(s.x || u.r) AS __ahead_1 FROM u JOIN s ON s.id = u.i)
        AS __rows_2 WHERE __rows_2.__c0 = t.i AND __rows_2.__ahead_1 > '3'

Joins associate to the left, so the first relations of a FROM clause may always be taken together.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from smartsql.sql.normalise.analysis.conditions import conjunction, split
from smartsql.sql.normalise.analysis.relations import is_repeatable
from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.binding.outputs import keep_output_name
from smartsql.sql.normalise.binding.scopes import Owner, Resolver, is_within, relations
from smartsql.sql.normalise.syntax.dialect import sql
from smartsql.sql.normalise.syntax.trees import own


def compute_over_join(
    calls: Sequence[exp.Expr], select: exp.Select, resolver: Resolver, names: Names
) -> bool:
    """Compute equal calls over the first relations of a query; False if that cannot be done.

    Args:
        calls: they read columns of `select` only, and stand in it or in queries inside it.
    """
    taken = _taken(calls[0], select)
    if not taken or not _can_be_one(select, taken, resolver):
        return False
    kept = [
        (column, owner)
        for column, owner in resolver.owners(select)
        if owner is not None and owner.select is select and not _is_in(column, taken)
        and not any(is_within(column, call) for call in calls)
    ]  # fmt: skip
    passed = [column for column, owner in kept if _may_belong(owner, taken)]
    call = calls[0].copy()
    inner = exp.Select()
    where = _early_conditions(select, taken, resolver) if names.economical else []
    column_name, rows = names.fresh("ahead"), names.fresh("rows")
    for node in [*calls, *passed]:
        keep_output_name(node)
    for node in calls:
        node.replace(exp.column(column_name, table=rows))
    known: dict[str, str] = {}
    for column in passed:
        name = known.setdefault(sql(column).lower(), f"__c{len(known)}")
        if len(inner.expressions) < len(known):
            inner.append("expressions", exp.alias_(column.copy(), name))
        column.replace(exp.column(name, table=rows))
    inner.append("expressions", exp.alias_(call, column_name))
    if where:
        inner.set("where", exp.Where(this=conjunction(where)))
        names.spared = True
    joins = list(select.args.get("joins") or [])
    n_joined = len(taken) - 1
    inner.set("from_", select.args["from_"])
    if n_joined:
        inner.set("joins", joins[:n_joined])
    alias = exp.TableAlias(this=exp.to_identifier(rows))
    select.set("from_", exp.From(this=exp.Subquery(this=inner, alias=alias)))
    select.set("joins", joins[n_joined:] or None)
    names.changed = True
    return True


def _taken(call: exp.Expr, select: exp.Select) -> list[exp.Expr]:
    """The relations of a query before the one a call stands in; all if it stands in none."""
    found = relations(select)
    for position, relation in enumerate(found):
        if is_within(call, relation):
            return found[:position]
    for position, join in enumerate(select.args.get("joins") or []):
        if is_within(call, join):  # its condition
            return found[: position + 1]
    return found


def _can_be_one(select: exp.Select, taken: list[exp.Expr], resolver: Resolver) -> bool:
    """Whether relations can become one query whose columns have new names."""
    rest = (select.args.get("joins") or [])[len(taken) - 1 :]
    joins = select.args.get("joins") or []
    if select.args.get("laterals") or any(j.args.get("using") or _is_natural(j) for j in rest):
        return False
    if any(str(j.args.get("method") or "").upper() == "POSITIONAL" for j in joins):
        return False
    if any(relation.args.get("joins") for relation in taken):
        return False
    for node in own(select):
        is_star = isinstance(node, exp.Star) and not isinstance(node.parent, exp.Anonymous)
        if is_star and not isinstance(select.parent, exp.Exists):
            return False
        if isinstance(node, exp.Anonymous) and node.name.lower() in {"columns", "unpack"}:
            return False
    around = {id(outer) for outer in _queries_around(select)}
    return not any(
        owner is not None and id(owner.select) in around
        for part in [select.args["from_"], *joins[: len(taken) - 1]]
        for _, owner in resolver.owners(part)
    )


def _is_natural(join: exp.Expr) -> bool:
    return str(join.args.get("method") or "").upper() == "NATURAL"


def _queries_around(select: exp.Select) -> list[exp.Select]:
    found = []
    outer = select.parent_select
    while outer is not None:
        if isinstance(outer, exp.Select):
            found.append(outer)
        outer = outer.parent_select
    return found


def _is_in(node: exp.Expr, taken: list[exp.Expr]) -> bool:
    """Whether a node moves inside with the relations, or with the conditions that join them."""
    if any(is_within(node, relation) for relation in taken):
        return True
    joins = [relation.parent for relation in taken[1:]]
    return any(join is not None and is_within(node, join) for join in joins)


def _may_belong(owner: Owner | None, taken: list[exp.Expr]) -> bool:
    """Whether a column is one of the relations, a select-list alias set aside."""
    if owner is None or owner.is_alias:
        return False
    return owner.relation is None or any(owner.relation is relation for relation in taken)


def _early_conditions(
    select: exp.Select, taken: list[exp.Expr], resolver: Resolver
) -> list[exp.Expr]:
    """Conditions of WHERE that rows of the relations must meet whatever follows."""
    rest = (select.args.get("joins") or [])[len(taken) - 1 :]
    if any(str(join.args.get("side") or "").upper() in {"RIGHT", "FULL"} for join in rest):
        return []
    where = select.args.get("where")
    cheap, _ = split(where.this if where is not None else None)
    found = []
    for condition in cheap:
        owners = [owner for _, owner in resolver.owners(condition)]
        if owners and is_repeatable(condition) and all(
            owner is not None and any(owner.relation is relation for relation in taken)
            for owner in owners
        ):  # fmt: skip
            found.append(condition.copy())
    return found
