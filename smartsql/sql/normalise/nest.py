"""Nesting: the rows of a SELECT, with some calls already answered, as a query of their own.

    SELECT <outer> FROM <relations> WHERE <cheap>          becomes
    SELECT <outer> FROM (SELECT <columns>, <call> AS __smart_1 FROM <relations> WHERE <cheap>
                         [QUALIFY <conditions on calls>]) AS <name>

Over one relation all its columns are passed on under its own name, so that nothing else in the
outer query changes. Over a join, the columns that the outer query refers to are passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import duckdb
from sqlglot import exp

from smartsql.sql.normalise.calls import is_call, is_columns, own, own_calls, refuse
from smartsql.sql.normalise.dialect import default_name, default_names, key, output_names, sql
from smartsql.sql.normalise.origins import original
from smartsql.sql.normalise.stars import expand_stars

_MOVED = ("from_", "joins", "laterals", "sample")


@dataclass
class Names:
    """New names for one statement, and what is known about old ones.

    Attributes:
        columns_of: names of the columns that a query text would have, or None; runs nothing.
        economical: whether rules may be used that only spare questions.
        changed: whether a rule changed the statement.
        spared: whether a rule did that only spares questions.
    """

    columns_of: Callable[[str], Sequence[str] | None]
    economical: bool = True
    _numbers: count[int] = field(default_factory=lambda: count(1))
    changed: bool = False
    spared: bool = False
    _bound: dict[str, Sequence[str] | None] = field(default_factory=dict)

    def fresh(self, stem: str) -> str:
        """A name that no one else uses."""
        return f"__{stem}_{next(self._numbers)}"

    def from_columns(self, select: exp.Select) -> set[str] | None:
        """Columns that the FROM clause of a query offers, in lower case; None if unknown."""
        columns = self.output(select, [exp.Star()])
        return None if columns is None else {column.lower() for column in columns}

    def output(self, select: exp.Select, items: list[exp.Expr]) -> list[str] | None:
        """Names that DuckDB gives to items over the FROM clause of a query; None if unknown."""
        probe = exp.Select(expressions=items)
        for clause in ("from_", "joins", "laterals"):
            part = select.args.get(clause)
            if part:
                probe.set(
                    clause, [p.copy() for p in part] if isinstance(part, list) else part.copy()
                )
        with_ = _visible_ctes(select)
        if with_ is not None:
            probe.set("with_", with_)
        # only names matter: parameters have no value yet, calls may still stand where they cannot
        _without_parameters(probe)
        for call in [node for node in probe.find_all(exp.Anonymous) if is_call(node)]:
            call.replace(exp.cast(exp.Null(), "VARCHAR"))
        for inner in probe.find_all(exp.Select):
            inner.set("qualify", None)  # without its calls it may lack the window it needs
        text = sql(probe)
        if text not in self._bound:
            self._bound[text] = self.columns_of(text)
        columns = self._bound[text]
        return None if columns is None else list(columns)

    def columns(self, query: exp.Expr) -> list[str] | None:
        """Names of the columns of a planned query; None if DuckDB would refuse it."""
        probe = query.copy()
        _without_parameters(probe)
        columns = self.columns_of(sql(probe))
        return None if columns is None else list(columns)


def _without_parameters(query: exp.Expr) -> None:
    for mark in list(query.find_all(exp.Placeholder, exp.Parameter)):
        mark.replace(exp.Null())


def _visible_ctes(select: exp.Select) -> exp.With | None:
    """The WITH queries that a query can name: those around it, and those before its own."""
    ctes: list[exp.Expr] = []
    recursive = False
    node: exp.Expr | None = select
    inside: exp.Expr | None = None
    while node is not None:
        with_ = node.args.get("with_")
        if with_ is not None:
            known = with_.expressions
            if any(cte is inside for cte in known) and not with_.args.get("recursive"):
                known = known[: [cte is inside for cte in known].index(True)]
            ctes = [cte.copy() for cte in known] + ctes
            recursive = recursive or bool(with_.args.get("recursive"))
        if isinstance(node, exp.CTE):
            inside = node
        node = node.parent
    return exp.With(expressions=ctes, recursive=recursive) if ctes else None


def binder(con: duckdb.DuckDBPyConnection) -> Callable[[str], Sequence[str] | None]:
    """Column names of a query by binding it on a connection, without running it."""

    def columns_of(query: str) -> Sequence[str] | None:
        try:
            return list(con.sql(query).columns)
        except duckdb.Error:
            return None

    return columns_of


def aliases_of(select: exp.Select) -> dict[str, exp.Expr]:
    """Expressions of the select list by their alias in lower case."""
    return {
        item.alias.lower(): item.this for item in select.expressions if isinstance(item, exp.Alias)
    }


def expand_aliases(select: exp.Select, root: exp.Expr, names: Names) -> exp.Expr:
    """`root` with aliases of the select list replaced by what they stand for.

    A column of FROM hides an alias of the same name, as in DuckDB.
    """
    known = aliases_of(select)
    for _ in range(len(known)):
        used = [
            node
            for node in own(root)
            if isinstance(node, exp.Column) and not node.table and node.name.lower() in known
        ]
        if not used:
            break
        offered = names.from_columns(select)
        used = [node for node in used if offered is not None and node.name.lower() not in offered]
        if not used:
            break
        for node in used:
            meaning = known[node.name.lower()].copy()
            if not isinstance(meaning, (exp.Column, exp.Anonymous, exp.Literal)):
                meaning = exp.paren(meaning, copy=False)
            names.changed = True
            if node is root:
                root = meaning
            else:
                node.replace(meaning)
    return root


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
        inner.append("expressions", exp.alias_(node.copy(), name))
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


def keep_output_name(node: exp.Expr) -> None:
    """Name the output in which a node stands as DuckDB names it now."""
    item = node
    while item.parent is not None and not isinstance(item.parent, exp.Select):
        item = item.parent
    if item.arg_key != "expressions" or isinstance(item, exp.Alias) or item.is_star:
        return
    alias = exp.Alias(alias=exp.to_identifier(default_name(item), quoted=True))
    item.replace(alias)
    alias.set("this", item)


def name_outputs(select: exp.Select, *, only_changed: bool = False) -> None:
    """Give every unnamed output the name DuckDB gives it as it was written.

    Args:
        only_changed: leave those alone that still are as they were written.
    """
    unnamed = [item for item in select.expressions if not _is_named(item)]
    if only_changed:
        unnamed = [item for item in unnamed if sql(item) != original(item)]
    for item, name in zip(unnamed, _default_names(select, unnamed), strict=True):
        alias = exp.Alias(alias=exp.to_identifier(name, quoted=True))
        item.replace(alias)
        alias.set("this", item)


def _default_names(select: exp.Select, items: list[exp.Expr]) -> list[str]:
    written = original(select)
    if select.args.get("windows") and written is not None:  # a name says what its window is
        names = output_names(written)
        if len(names) == len(select.expressions):
            places = {id(item): place for place, item in enumerate(select.expressions)}
            return [names[places[id(item)]] for item in items]
    return default_names(items)


def _is_named(item: exp.Expr) -> bool:
    """Whether an output keeps its name; `_pass_referenced` sees to columns that it renames."""
    if isinstance(item, (exp.Alias, exp.Column)) or item.is_star:
        return True
    return any(isinstance(node, exp.Columns) or is_columns(node) for node in own(item))


def _refer(select: exp.Select, columns: dict[str, str], lifted: Sequence[exp.Expr]) -> None:
    """Replace what was lifted by references to its columns."""
    kinds = {(type(node), node.name.lower()) for node in lifted}
    for node in list(own(select)):
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
    for node in list(own(select)):
        if isinstance(node, exp.Star):
            if isinstance(node.parent, exp.Anonymous):  # count(*)
                continue
            if hidden:
                node.set("except_", [*(node.args.get("except_") or []), *hidden])
        if is_columns(node) and hidden:
            raise refuse(
                next(iter(own_calls(inner))),
                "a query with COLUMNS(..)",
                "Compute the call in a subquery with a name for it, and use COLUMNS(..) outside.",
            )
    payload: list[exp.Expr] = [exp.Star()]
    for node in select.find_all(exp.Column):
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
    mine = {id(node) for node in own(select)}
    for star in select.find_all(exp.Star):
        if id(star) in mine and not isinstance(star.parent, exp.Anonymous):
            raise _star_over_join(select, inner)
    for node in list(select.find_all(exp.Column)):
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
        name = passed.setdefault(sql(node).lower(), f"__c{len(passed)}")
        if not any(item.alias == name for item in inner.expressions):
            inner.append("expressions", exp.alias_(node.copy(), name))
        column: exp.Expr = exp.column(name, table=alias)
        if node.parent is select and node.arg_key == "expressions":
            column = exp.alias_(column, node.name, quoted=True)
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
