"""Which relation a column belongs to: of its own query, of one around it, or of an earlier sibling.

DuckDB looks a name up in the relations of the query it stands in, then in those of the queries
around it; a query in FROM also sees the relations written before it, with or without LATERAL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlglot import exp

from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.binding.outputs import aliases_of
from smartsql.sql.normalise.syntax.dialect import sql
from smartsql.sql.normalise.syntax.engine import output_names
from smartsql.sql.normalise.syntax.trees import every, own


@dataclass(frozen=True, slots=True)
class Owner:
    """Where a column comes from.

    Attributes:
        select: the query in whose FROM its relation stands.
        relation: that relation; None for an alias, or if several could be meant.
        is_alias: whether it is an alias of the select list.
    """

    select: exp.Select
    relation: exp.Expr | None
    is_alias: bool = False


def relations(select: exp.Select) -> list[exp.Expr]:
    """What FROM lists at top level, in the order of writing; joins in brackets are one relation."""
    source = select.args.get("from_")
    found = [source.this] if source is not None else []
    return found + [join.this for join in select.args.get("joins") or []]


def names_of(relation: exp.Expr) -> set[str]:
    """Names by which a relation's columns may be qualified, in lower case."""
    if _is_bracketed_join(relation):
        if relation.alias:
            return {relation.alias.lower()}
        inner = relation.this
        joined = [inner, *[join.this for join in inner.args.get("joins") or []]]
        return {name for part in joined for name in names_of(part)}
    name = relation.alias_or_name
    if not name and isinstance(relation.this, exp.Anonymous):
        name = relation.this.name
    return {name.lower()} - {""}


def _is_bracketed_join(relation: exp.Expr) -> bool:
    return isinstance(relation, exp.Subquery) and not isinstance(
        relation.this, (exp.Select, exp.SetOperation)
    )


def is_within(node: exp.Expr, whole: exp.Expr) -> bool:
    """Whether a node is a part of another, or that itself."""
    part: exp.Expr | None = node
    while part is not None and part is not whole:
        part = part.parent
    return part is whole


def levels(node: exp.Expr) -> Iterator[tuple[exp.Select, exp.Expr]]:
    """The queries around a node, inner first, each with its direct child on the way there."""
    child = node
    while child.parent is not None:
        if isinstance(child.parent, exp.Select):
            yield child.parent, child
        child = child.parent


def visible(select: exp.Select, child: exp.Expr, node: exp.Expr) -> list[exp.Expr]:
    """Relations of a query that a node inside its direct child can name."""
    found = relations(select)
    if child.arg_key == "with_":
        return []
    if child.arg_key not in {"from_", "joins"}:
        return found
    position = 0 if child.arg_key == "from_" else 1 + (child.index or 0)
    step = node
    while step.parent is not child and step.parent is not None:
        step = step.parent
    inside = step.arg_key == "this" and not _is_bracketed_join(step)
    return found[:position] if inside else found[: position + 1]


@dataclass
class Resolver:
    """Looks up columns of one statement; asks DuckDB for the columns of a relation once."""

    names: Names
    _known: dict[str, frozenset[str] | None] = field(default_factory=dict)

    def columns(self, relation: exp.Expr, select: exp.Select) -> frozenset[str] | None:
        """Names of a relation's columns in lower case; None if they cannot be told."""
        probe = exp.Select(expressions=[exp.Star()], from_=exp.From(this=relation.copy()))
        probe.parent = select  # its WITH queries, and those around it, are visible
        key = f"{id(select)} {sql(probe)}"
        if key not in self._known:
            offered = self.names.from_columns(probe)
            if offered is None:
                offered = _written_names(relation)
            self._known[key] = None if offered is None else frozenset(offered)
        return self._known[key]

    def owner(self, column: exp.Column) -> Owner | None:
        """The relation a column belongs to; None if no relation around it is known to have it."""
        qualifiers = [
            column.text(part).lower() for part in ("table", "db", "catalog") if column.text(part)
        ]
        head = qualifiers[-1] if qualifiers else column.name.lower()
        for select, child in levels(column):
            candidates = visible(select, child, column)
            for name in qualifiers:
                for relation in candidates:
                    if name in names_of(relation):
                        return Owner(select, relation)
            offered = [self.columns(relation, select) for relation in candidates]
            having = [
                relation
                for relation, names in zip(candidates, offered, strict=True)
                if names is not None and head in names
            ]
            if having:
                return Owner(select, having[0] if len(having) == 1 else None)
            if any(names is None for names in offered):
                return Owner(select, None)  # it may be one of a relation that DuckDB cannot bind
            sees_aliases = not qualifiers and child.arg_key not in {"from_", "with_", "joins"}
            if sees_aliases and head in aliases_of(select):
                return Owner(select, None, is_alias=True)
        return None

    def owners(self, root: exp.Expr) -> list[tuple[exp.Column, Owner | None]]:
        """The columns below a node, those of queries inside it too, with their owners."""
        return [
            (column, self.owner(column))
            for column in every(root, exp.Column)
            if not isinstance(column.this, exp.Star) and not _names_output(column)
        ]

    def foreign(self, select: exp.Select) -> list[tuple[exp.Column, Owner]]:
        """Columns read inside a query, or by queries inside it, that belong to one around it."""
        around = {id(outer) for outer, _ in levels(select)}
        return [
            (column, owner)
            for column, owner in self.owners(select)
            if owner is not None and id(owner.select) in around
        ]


def is_local(root: exp.Expr, relation: exp.Expr, resolver: Resolver) -> bool:
    """Whether a condition reads nothing but columns of one relation of its query."""
    if any(isinstance(node, (exp.Select, exp.SetOperation)) for node in every(root, exp.Query)):
        return False
    owners = resolver.owners(root)
    return bool(owners) and all(
        owner is not None and owner.relation is relation for _, owner in owners
    )


def is_plain_table(relation: exp.Expr) -> bool:
    """Whether a relation is a table or WITH query by name, which may be read a second time."""
    if not isinstance(relation, exp.Table) or not isinstance(relation.this, exp.Identifier):
        return False
    if any(relation.args.get(key) for key in ("joins", "pivots", "sample", "laterals")):
        return False
    select = relation.parent_select
    while select is not None:
        with_ = select.args.get("with_")
        named = {cte.alias.lower() for cte in with_.expressions} if with_ is not None else set()
        if relation.name.lower() in named:
            return False
        select = select.parent_select
    root = relation.root()
    with_ = root.args.get("with_")
    return with_ is None or all(
        cte.alias.lower() != relation.name.lower() for cte in with_.expressions
    )


def _names_output(column: exp.Column) -> bool:
    """Whether a node only looks like a column: a name in EXCLUDE."""
    return isinstance(column.parent, exp.Star)


def _written_names(relation: exp.Expr) -> set[str] | None:
    """Column names of a query in FROM as its select list tells them; None with stars."""
    if isinstance(relation, exp.Lateral):
        relation = relation.this
    columns = relation.args.get("alias") and relation.args["alias"].args.get("columns")
    if columns:
        return {column.name.lower() for column in columns}
    query = relation.this if isinstance(relation, exp.Subquery) else relation
    if isinstance(query, exp.SetOperation):
        query = query.find(exp.Select) or query
    if not isinstance(query, exp.Select):
        return None
    if any(isinstance(node, exp.Star) for item in query.expressions for node in own(item)):
        return None
    listed = output_names(sql(query))
    return {name.lower() for name in listed} or None
