"""Nesting: the rows of a SELECT, with some calls already answered, as a query of their own.

    SELECT <outer> FROM <relations> WHERE <cheap>          becomes
    SELECT <outer> FROM (SELECT <columns>, <call> AS __smart_1 FROM <relations> WHERE <cheap>
                         [QUALIFY <conditions on calls>]) AS <name>

Over one relation all its columns are passed on under its own name, so that nothing else in the
outer query changes. Over a join, the columns that the outer query refers to are passed on.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.binding.outputs import aliases_of, name_outputs
from smartsql.sql.normalise.binding.stars import expand_stars
from smartsql.sql.normalise.calls.clauses import is_columns, own_calls, refuse
from smartsql.sql.normalise.syntax.dialect import key, sql
from smartsql.sql.normalise.syntax.trees import copied, every, own

_MOVED = ("from_", "joins", "laterals", "sample")


def nest(
    select: exp.Select,
    names: Names,
    *,
    lifted: Sequence[exp.Expr] = (),
    where: exp.Expr | None = None,
    qualify: exp.Expr | None = None,
    order: exp.Order | None = None,
    tail: Sequence[str] = (),
) -> None:
    """Put the rows of `select` into a query of their own, in place.

    Args:
        lifted: what to compute there, different from each other; what is equal outside refers
            to its column.
        where: cheap condition of the inner query.
        qualify: condition on calls of the inner query.
        order: order of the inner query.
        tail: clauses that move inside as they are ("limit", "offset").
    """
    names.changed = True
    name_outputs(select)
    if _single_relation(select) is None:
        expand_stars(select, names)
    inner = exp.Select()
    for clause in (*_MOVED, *tail):
        part = select.args.get(clause)
        if part:
            select.set(clause, None)
            inner.set(clause, part)
    if where is not None:
        inner.set("where", exp.Where(this=where))
    if qualify is not None:
        inner.set("qualify", exp.Qualify(this=qualify))
    if order is not None:
        inner.set("order", order)
    columns = {key(node): names.fresh("smart") for node in lifted}
    for node, name in zip(lifted, columns.values(), strict=True):
        inner.append("expressions", exp.alias_(copied(node), name, copy=False))
    _refer(select, columns, lifted)
    if any(isinstance(node, exp.Window) for node in lifted) and select.args.get("windows"):
        inner.set("windows", [window.copy() for window in select.args["windows"]])
    alias = _single_relation(inner)
    if alias is not None:
        _pass_all(select, inner, alias, columns)
    else:
        alias = names.fresh("rows")
        _pass_referenced(select, inner, alias, names)
    source = exp.Subquery(this=inner, alias=exp.TableAlias(this=exp.to_identifier(alias)))
    select.set("from_", exp.From(this=source))


def _refer(select: exp.Select, columns: dict[str, str], lifted: Sequence[exp.Expr]) -> None:
    """Replace what was lifted by references to its columns."""
    kinds = {(type(node), node.name.lower()) for node in lifted}
    for node in own(select):
        if (type(node), node.name.lower()) in kinds:
            name = columns.get(key(node))
            if name is not None:
                node.replace(exp.column(name))


def _single_relation(inner: exp.Select) -> str | None:
    """The name of the only relation of a query; None over a join."""
    source = inner.args.get("from_")
    if source is None or inner.args.get("joins") or inner.args.get("laterals"):
        return None
    relation = source.this
    if relation.args.get("joins"):
        return None
    if relation.alias_or_name:
        return str(relation.alias_or_name)
    return relation.this.name if isinstance(relation.this, exp.Anonymous) else "__rows"


def _pass_all(select: exp.Select, inner: exp.Select, alias: str, columns: dict[str, str]) -> None:
    """Pass all columns of one relation on."""
    hidden = [exp.to_identifier(name) for name in columns.values()]
    for node in own(select):
        if isinstance(node, exp.Star):
            if isinstance(node.parent, exp.Anonymous):  # count(*)
                continue
            if hidden:
                node.set("except_", [*(node.args.get("except_") or []), *hidden])
        elif hidden and is_columns(node):
            raise refuse(
                next(iter(own_calls(inner))),
                "a query with COLUMNS(..)",
                "Compute the call in a subquery with a name for it, and use COLUMNS(..) outside.",
            )
    payload: list[exp.Expr] = [exp.Star()]
    for node in every(select, exp.Column):
        if node.args.get("db") is not None and node.table.lower() == alias.lower():
            node.set("db", None)
            node.set("catalog", None)
        if node.name.lower() == "rowid" and node.table.lower() in {"", alias.lower()}:
            payload = [exp.Star(), exp.column("rowid")]
    inner.set("expressions", [*payload, *inner.expressions])


def _pass_referenced(select: exp.Select, inner: exp.Select, alias: str, names: Names) -> None:
    """Pass those columns of a join on that the outer query refers to."""
    aliases = aliases_of(select)
    relations = {
        relation.alias_or_name.lower()
        for clause in ("from_", "joins", "laterals")
        for part in _as_list(inner.args.get(clause))
        for relation in [part.this if isinstance(part, (exp.From, exp.Join)) else part]
    }
    offered = names.from_columns(inner) if aliases else None
    passed: dict[str, str] = {}
    parts = own(select)
    if any(isinstance(n, exp.Star) and not isinstance(n.parent, exp.Anonymous) for n in parts):
        raise _star_over_join(select, inner)
    mine = {id(node) for node in parts}
    for node in every(select, exp.Column):
        if id(node) not in mine and node.table.lower() not in relations:
            continue
        if _is_variable(node):
            continue
        if not node.table and node.name.lower() in aliases and id(node) in mine:
            by_alias = not (offered and node.name.lower() in offered)
            ordered = node.find_ancestor(exp.Ordered, exp.Select)
            if by_alias or isinstance(ordered, exp.Ordered):
                continue
        if node.name.startswith("__smart_"):
            node.set("table", exp.to_identifier(alias))
            continue
        text = sql(node).lower()
        if text not in passed:
            passed[text] = f"__c{len(passed)}"
            inner.append("expressions", exp.alias_(copied(node), passed[text], copy=False))
        column: exp.Expr = exp.column(passed[text], table=alias)
        if node.parent is select and node.arg_key == "expressions":
            column = exp.alias_(column, node.name, quoted=True, copy=False)
        node.replace(column)
    if not inner.expressions:
        inner.append("expressions", exp.alias_(exp.Literal.number(1), "__c0"))


def _is_variable(column: exp.Column) -> bool:
    """Whether a column is the variable of a list comprehension around it."""
    node = column.find_ancestor(exp.Comprehension, exp.Select)
    while isinstance(node, exp.Comprehension):
        declared = [node.expression, node.args.get("position")]
        if any(item is not None and item.name.lower() == column.name.lower() for item in declared):
            return not column.table
        node = node.find_ancestor(exp.Comprehension, exp.Select)
    return False


def _star_over_join(select: exp.Select, inner: exp.Select) -> Exception:
    calls = own_calls(inner) or own_calls(select)
    return refuse(
        calls[0],
        "a query that selects * from a join",
        "Name the columns instead of *, or select from the join in a subquery first.",
    )


def _as_list(part: object) -> list[exp.Expr]:
    if part is None:
        return []
    return part if isinstance(part, list) else [part]  # type: ignore[list-item]
