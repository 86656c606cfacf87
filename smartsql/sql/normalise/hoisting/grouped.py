"""Groups as a query of their own, where something must see their answers afterwards.

    SELECT k, rank() OVER (ORDER BY smart_llm(min(r))) FROM t GROUP BY k
    SELECT __g_1 AS k, rank() OVER (ORDER BY smart_llm(__g_2))
    FROM (SELECT k AS __g_1, min(r) AS __g_2 FROM t GROUP BY k)

Outside, groups are rows like any others, so all further rules apply to them.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlglot import exp

from smartsql.sql.normalise.analysis.conditions import conjunction, set_where, split
from smartsql.sql.normalise.analysis.purity import is_steady
from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.binding.outputs import aliases_of, expand_aliases, name_outputs
from smartsql.sql.normalise.binding.stars import expand_stars
from smartsql.sql.normalise.calls.clauses import is_aggregate, is_call, own_calls, refuse
from smartsql.sql.normalise.syntax.dialect import key
from smartsql.sql.normalise.syntax.trees import every, own

_INSIDE = ("from_", "joins", "laterals", "sample", "where", "group")
_OUTSIDE = ("expressions", "distinct", "qualify", "windows", "order")
_WRAPPERS = (exp.Filter, exp.WithinGroup, exp.IgnoreNulls, exp.RespectNulls)
_GROUPING = frozenset({"grouping", "grouping_id"})


def nest_groups(select: exp.Select, names: Names) -> None:
    """Put the groups of `select` into a query of their own, in place.

    Conditions of HAVING on calls become conditions of WHERE outside.

    Raises:
        UnplannableCallError: it reads something that is neither a key nor an aggregate.
    """
    names.changed = True
    expand_stars(select, names)
    name_outputs(select)
    _write_keys_out(select, names)
    having = select.args.get("having")
    condition = None if having is None else expand_aliases(select, having.this, names)
    cheap, smart = split(condition)
    select.set("having", None)
    set_inside = {name: select.args.get(name) for name in _INSIDE}
    columns = _Columns(select, names)
    outside = [part for name in _OUTSIDE for part in _parts(select.args.get(name))]
    for root in outside:
        columns.replace(root)
    smart = [columns.replace(root) for root in smart]
    inner = exp.Select(expressions=columns.items or [exp.Literal.number(1)])
    for name, part in set_inside.items():
        if part:
            select.set(name, None)
            inner.set(name, part)
    rest = conjunction(cheap)
    if rest is not None:
        inner.set("having", exp.Having(this=rest))
    alias = exp.TableAlias(this=exp.to_identifier(names.fresh("groups")))
    select.set("from_", exp.From(this=exp.Subquery(this=inner, alias=alias)))
    set_where(select, smart)


def plan_keys(root: exp.Expr, names: Names) -> None:
    """Say by position that a query groups by an output with calls in queries of its own.

    Written twice, they would be planned twice, and DuckDB would not take one for the other.
    """
    for select in every(root, exp.Select):
        group = select.args.get("group")
        for each in list(group.expressions) if group is not None else []:
            queries = every(each, exp.Select)
            if not any(is_call(node) for q in queries for node in every(q, exp.Anonymous)):
                continue
            outputs = [key(without_brackets(item.unalias())) for item in select.expressions]
            text = key(without_brackets(each))
            place = outputs.index(text) if text in outputs else len(outputs)
            if place < len(outputs) and not any(i.is_star for i in select.expressions[:place]):
                each.replace(exp.Literal.number(place + 1))
                names.changed = True


def write_all_out(select: exp.Select) -> None:
    """Write out what GROUP BY ALL groups by, in a query without stars.

    Beside aggregates DuckDB leaves constants out; as keys, numbers would be positions.
    """
    meanings = [without_brackets(item.unalias()) for item in select.expressions]
    keys = [
        each.copy()
        for each in meanings
        if not _is_constant(each) and not any(is_aggregate(node) for node in own(each))
    ]
    select.set("group", exp.Group(expressions=keys) if keys else None)


def _is_constant(node: exp.Expr) -> bool:
    return node.find(exp.Column, exp.Query) is None and is_steady(node)


def without_brackets(node: exp.Expr) -> exp.Expr:
    """What stands in brackets; a query keeps those that make it a value."""
    while isinstance(node, exp.Paren) or (
        isinstance(node, exp.Subquery) and isinstance(node.this, exp.Subquery)
    ):
        node = node.this
    return node


class _Columns:
    """Keys and aggregates of a grouped query, as columns of the query below."""

    def __init__(self, select: exp.Select, names: Names) -> None:
        self.items: list[exp.Expr] = []
        self._select, self._names = select, names
        self._aliases = aliases_of(select).keys()
        self._named: dict[str, str] = {}
        group = select.args.get("group")
        self._keys = {key(node) for node in _keys(group)} if group is not None else set()
        self._key_names = {
            node.name.lower(): node for node in _keys(group) if isinstance(node, exp.Column)
        }

    def replace(self, root: exp.Expr) -> exp.Expr:
        """An expression over groups with columns of the query below."""
        meaning = self._meaning(root)
        if meaning is not None:
            column: exp.Expr = exp.column(self._name(meaning))
            if root.parent is self._select and isinstance(root, exp.Column):
                column = exp.alias_(column, root.name, quoted=True)
            if root.parent is not None:
                root.replace(column)
            return column
        if isinstance(root, exp.Column) and not self._is_alias(root):
            raise refuse(
                own_calls(self._select)[0],
                "a query with GROUP BY",
                "Group in a subquery, and call smart_llm on its columns.",
                f"{key(root)} is neither a key nor an aggregate of the groups",
            )
        for child in list(root.iter_expressions()):
            if not isinstance(child, (exp.Select, exp.SetOperation)):
                self.replace(child)
        return root

    def _meaning(self, node: exp.Expr) -> exp.Expr | None:
        """The key or aggregate that a node is; None if it is neither."""
        function = node
        while isinstance(function, _WRAPPERS):
            function = function.this
        if is_aggregate(function) or (
            isinstance(node, exp.Anonymous) and node.name.lower() in _GROUPING
        ):
            return node
        if key(node) in self._keys and not isinstance(node, exp.Ordered):
            return node
        if isinstance(node, exp.Column):
            same = self._key_names.get(node.name.lower())
            if same is not None and not (node.table and same.table):
                return same
        return None

    def _is_alias(self, column: exp.Column) -> bool:
        return not column.table and column.name.lower() in self._aliases

    def _name(self, meaning: exp.Expr) -> str:
        text = key(meaning)
        if text not in self._named:
            self._named[text] = self._names.fresh("g")
            self.items.append(exp.alias_(meaning.copy(), self._named[text]))
        return self._named[text]


def _parts(value: object) -> list[exp.Expr]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]  # type: ignore[list-item]


def _keys(group: exp.Expr | None) -> Iterator[exp.Expr]:
    """The expressions that a GROUP BY groups by."""
    for node in [] if group is None else group.iter_expressions():
        if isinstance(node, (exp.Rollup, exp.Cube, exp.GroupingSets, exp.Tuple, exp.Group)):
            yield from _keys(node)
        else:
            yield node


def _write_keys_out(select: exp.Select, names: Names) -> None:
    """Write positions, aliases and ALL in GROUP BY out: the select list changes."""
    group = select.args.get("group")
    if group is None:
        return
    items = select.expressions
    if group.args.get("all"):
        write_all_out(select)
        return
    expand_aliases(select, group, names)
    for node in list(_keys(group)):
        if isinstance(node, exp.Literal) and node.this.isdigit():
            place = int(node.this)
            if 1 <= place <= len(items):
                node.replace(items[place - 1].unalias().copy())
