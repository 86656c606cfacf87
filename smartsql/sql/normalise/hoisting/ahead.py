"""A call computed ahead, with the relation whose columns it reads.

    FROM t AS a .. <call over a>      becomes
    FROM (SELECT *, <call> AS __ahead_1 FROM t AS a [WHERE <what a row needs to matter>]) AS a ..

and the call is `a.__ahead_1`, which stars of the query do not show. Only rows that can matter are
asked: those that the given conditions on the relation let through, and those whose key stands in
the table that an equality compares it with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot import exp

from smartsql.sql.normalise.analysis.conditions import conjunction
from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.calls.clauses import is_call, refuse
from smartsql.sql.normalise.syntax.dialect import sql
from smartsql.sql.normalise.syntax.trees import every, own


@dataclass(frozen=True, slots=True)
class Place:
    """A relation of a query, and what is known about its rows.

    Attributes:
        drop: conditions without which a row matters to nobody: it is left out.
        skip: conditions without which the answer matters to nobody: the row is kept, not asked.
    """

    select: exp.Select
    relation: exp.Expr
    drop: Sequence[exp.Expr] = ()
    skip: Sequence[exp.Expr] = ()


def compute_ahead(calls: Sequence[exp.Expr], place: Place, names: Names) -> None:
    """Compute calls with the same text where their relation stands, and refer to the column.

    Raises:
        UnplannableCallError: the query shows all columns in a way that cannot leave one out.
    """
    select, relation = place.select, place.relation
    check_place(calls[0], place)
    drop, skip = (place.drop, place.skip) if names.economical else ((), ())
    if drop or skip:
        names.spared = True
    column = names.fresh("ahead")
    shows = _stars(select, relation)
    identifier = _identifier(relation, names)
    alias = identifier.name
    call = calls[0].copy()
    if skip:
        _ask_only(call, conjunction([condition.copy() for condition in skip]))
    if _is_read_whole(select, alias, names):
        raise refuse(
            calls[0],
            f"a query that reads whole rows of {alias}",
            "Name the columns, struct_pack(x := a.x, ..), instead of the relation.",
        )
    inner = exp.Select(expressions=[exp.Star()])
    hidden = [column]
    if _reads_rowid(select, alias):
        inner.append("expressions", exp.column("rowid"))
        hidden.append("rowid")
    _unqualify(select, alias)
    for node in calls:
        node.replace(exp.column(column, table=identifier.copy()))
    for star in shows:
        star.set(
            "except_",
            [*(star.args.get("except_") or []), *[exp.to_identifier(name) for name in hidden]],
        )
    source = exp.Subquery(this=inner, alias=exp.TableAlias(this=identifier.copy()))
    relation.replace(source)
    inner.set("from_", exp.From(this=relation))
    inner.append("expressions", exp.alias_(call, column))
    if drop:
        inner.set("where", exp.Where(this=conjunction([c.copy() for c in drop])))
    names.changed = True


def check_place(call: exp.Expr, place: Place) -> None:
    """Refuse relations that cannot be replaced by a query over them.

    Raises:
        UnplannableCallError: joins in brackets, POSITIONAL JOIN, COLUMNS(..) over unknown names.
    """
    select, relation = place.select, place.relation
    advice = "Name it first: WITH q AS (SELECT *, smart_llm(..) AS answer FROM ..), and use q here."
    if relation.args.get("joins") or not isinstance(
        relation, (exp.Table, exp.Subquery, exp.Values, exp.Unnest)
    ):
        raise refuse(call, "a query over joins in brackets or LATERAL", advice)
    if isinstance(relation, exp.Subquery) and not isinstance(
        relation.this, (exp.Select, exp.SetOperation)
    ):
        raise refuse(call, "a query over joins in brackets", advice)
    for join in select.args.get("joins") or []:
        if str(join.args.get("method") or "").upper() == "POSITIONAL":
            raise refuse(call, "a query with POSITIONAL JOIN", advice)
    for node in own(select):
        if isinstance(node, exp.Star) and isinstance(node.parent, (exp.Like, exp.ILike)):
            raise refuse(call, "a query with * LIKE", advice)
        if _is_columns(node) and not any(isinstance(a, exp.Star) for a in own(node)):
            pattern = node.expressions[0] if node.expressions else None
            if (
                not isinstance(pattern, exp.Literal)
                or not pattern.is_string
                or _matches(str(pattern.this), "__ahead_1")
            ):
                raise refuse(call, "a query with COLUMNS(..)", advice)


def _ask_only(call: exp.Expr, condition: exp.Expr | None) -> None:
    """Make a call ask only where a condition holds; its answer is NULL elsewhere."""
    prompt = call.expressions[0]
    if isinstance(prompt, (exp.PropertyEQ, exp.Kwarg)):
        prompt = prompt.expression
    prompt.replace(exp.Case(ifs=[exp.If(this=condition, true=prompt.copy())]))


def _identifier(relation: exp.Expr, names: Names) -> exp.Identifier:
    """The name of a relation's columns, as it is written; a new one where it has none."""
    alias = relation.args.get("alias")
    written = alias.this if alias is not None and alias.this is not None else relation.this
    if isinstance(written, exp.Identifier):
        return written.copy()
    if isinstance(relation.this, exp.Anonymous):
        return exp.to_identifier(relation.this.name, quoted=True)
    return exp.to_identifier(names.fresh("rows"))


def _stars(select: exp.Select, relation: exp.Expr) -> list[exp.Star]:
    """Stars of a query that would show a column added to a relation."""
    for join in select.args.get("joins") or []:
        kind = str(join.args.get("kind") or "").upper()
        if join.this is relation and kind in {"SEMI", "ANTI"}:
            return []
    name = str(relation.alias_or_name).lower()
    return [
        node
        for node in own(select)
        if isinstance(node, exp.Star)
        and not (isinstance(node.parent, exp.Anonymous) and not _is_columns(node.parent))
        and not (isinstance(node.parent, exp.Column) and node.parent.table.lower() != name)
    ]


def _is_columns(node: exp.Expr | None) -> bool:
    return (isinstance(node, exp.Anonymous) and node.name.lower() == "columns") or isinstance(
        node, exp.Columns
    )


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return True


def _is_read_whole(select: exp.Select, alias: str, names: Names) -> bool:
    """Whether the name of a relation is used as a column, which is a struct of all of them."""
    name = alias.lower()
    if all(c.table or c.name.lower() != name for c in every(select, exp.Column)):
        return False
    return name not in (names.from_columns(select) or set())


def _reads_rowid(select: exp.Select, alias: str) -> bool:
    return any(
        node.name.lower() == "rowid" and node.table.lower() in {"", alias.lower()}
        for node in every(select, exp.Column)
    )


def _unqualify(select: exp.Select, alias: str) -> None:
    """Drop the schema before the table in columns of a relation that becomes a query."""
    for node in every(select, exp.Column):
        if node.args.get("db") is not None and node.table.lower() == alias.lower():
            node.set("db", None)
            node.set("catalog", None)


def same_calls(calls: Sequence[exp.Expr]) -> list[list[exp.Expr]]:
    """Calls grouped by their text."""
    groups: dict[str, list[exp.Expr]] = {}
    for call in calls:
        if is_call(call):
            groups.setdefault(sql(call), []).append(call)
    return list(groups.values())
