"""Calls above what leaves rows out: LIMIT, DISTINCT ON, conditions of QUALIFY on windows.

    SELECT k, max(review) AS r, smart_llm(max(review)) FROM t GROUP BY k ORDER BY k LIMIT 3
    SELECT __c0 AS k, __c1 AS r, smart_llm(__c1) AS .. FROM (
        SELECT k AS __c0, max(review) AS __c1 FROM t GROUP BY k ORDER BY k LIMIT 3) AS __rows_1
    ORDER BY __c0

The query without its calls, as a query of its own, passes on what the calls and the other outputs
are computed from: its columns, aggregates, windows and inner queries. Only where neither the rows
nor their order depend on an answer; a condition on answers in QUALIFY keeps LIMIT and DISTINCT
above it, but not the groups and windows that it is about.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from sqlglot import exp

from smartsql.sql.normalise.analysis.conditions import conjunction, split
from smartsql.sql.normalise.analysis.rows import is_expanding, order_by_columns
from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.binding.outputs import expand_aliases, name_outputs
from smartsql.sql.normalise.calls.clauses import (
    clause_of,
    has_call,
    is_aggregate,
    is_native,
    own_calls,
)
from smartsql.sql.normalise.syntax.dialect import key
from smartsql.sql.normalise.syntax.trees import own

_ROWS = ("from_", "joins", "laterals", "sample", "pivots", "where", "group", "having", "windows")
_CUT = ("distinct", "limit", "offset")
_AGGREGATING = (exp.Window, exp.Filter, exp.WithinGroup, exp.IgnoreNulls, exp.RespectNulls)


def plan_above(select: exp.Select, names: Names) -> bool:
    """Compute a query's calls above the rows that it leaves out; True if that was possible."""
    calls = own_calls(select)
    if not calls or not all(
        clause_of(call, select) in {"expressions", "qualify"} and is_native(call, select)
        for call in calls
    ):
        return False
    changed = names.changed
    qualify = select.args.get("qualify")
    condition = expand_aliases(select, qualify.this.copy(), names) if qualify is not None else None
    cheap, smart = split(condition)
    order = order_by_columns(select) if select.args.get("order") else None
    if (
        (order is None and select.args.get("order"))
        or not _spares(select, cheap, smart)
        or not _is_separable(select, smart)
        or not _is_determined(select)
    ):
        names.changed = changed
        return False
    _write_out(select, names)
    _Separation(select, names, cheap, smart).carry_out(order)
    return True


def _spares(select: exp.Select, cheap: list[exp.Expr], smart: list[exp.Expr]) -> bool:
    """Whether there is something to go below the calls."""
    distinct = select.args.get("distinct")
    is_on = distinct is not None and distinct.args.get("on") is not None
    is_cut = bool(select.args.get("limit")) or is_on
    if smart:
        return bool(cheap) or bool(select.args.get("limit") and select.args.get("group"))
    return bool(cheap) or is_cut


def _is_separable(select: exp.Select, smart: list[exp.Expr]) -> bool:
    """Whether the outputs can be computed from columns that an inner query passes on."""
    group = select.args.get("group")
    if not select.args.get("from_") or (group is not None and group.args.get("all")):
        return False
    if any(is_expanding(node) for item in select.expressions for node in own(item)):
        return False
    if any(
        isinstance(node, (exp.Lambda, exp.Comprehension)) and has_call(node.parent or node)
        for item in [*select.expressions, *smart]
        for node in own(item)
    ):
        return False
    has_star = any(
        isinstance(node, exp.Star) and not isinstance(node.parent, exp.Anonymous)
        for item in select.expressions
        for node in own(item)
    )
    return not has_star or (_only_relation(select) is not None and not group)


def _only_relation(select: exp.Select) -> str | None:
    """The name of a query's only relation."""
    relation = select.args["from_"].this
    if select.args.get("joins") or select.args.get("laterals") or relation.args.get("joins"):
        return None
    return str(relation.alias_or_name) or None


def _is_determined(select: exp.Select) -> bool:
    """Whether equal rows of a DISTINCT query have equal answers without comparing them."""
    distinct = select.args.get("distinct")
    if distinct is None or distinct.args.get("on") is not None:
        return True
    cheap = {key(item.unalias()) for item in select.expressions if not has_call(item)}
    passed = _Passed(exp.to_identifier("_"), cheap)
    for item in select.expressions:
        if has_call(item):
            passed.refer(item.copy())
    return passed.columns.keys() <= cheap


def _write_out(select: exp.Select, names: Names) -> None:
    """Write aliases and positions out, and name every output: the inner query has others."""
    names.changed = names.spared = True
    items = [item.unalias().copy() for item in select.expressions]
    for clause in ("where", "having"):
        found = select.args.get(clause)
        if found is not None:
            found.set("this", expand_aliases(select, found.this, names))
    distinct, group = select.args.get("distinct"), select.args.get("group")
    holders = [group, distinct.args.get("on") if distinct is not None else None]
    keys = [each for holder in holders if holder is not None for each in holder.expressions]
    for each in keys:
        position = int(each.this) if isinstance(each, exp.Literal) and not each.is_string else 0
        if 1 <= position <= len(items):
            each.replace(items[position - 1])
        else:
            expanded = expand_aliases(select, each, names)
            if expanded is not each:
                each.replace(expanded)
    name_outputs(select)
    for item in list(select.expressions):
        if isinstance(item, exp.Alias):
            item.set("this", expand_aliases(select, item.this, names))


@dataclass
class _Passed:
    """Columns that an inner query passes on, by the text of what they are there.

    Attributes:
        alias: name of the inner query.
        whole: texts of expressions that are passed as they are.
        has_all: whether it passes all columns of its relation on anyway.
    """

    alias: exp.Identifier
    whole: set[str]
    has_all: bool = False
    columns: dict[str, tuple[exp.Identifier, exp.Expr]] = field(default_factory=dict)

    def refer(self, node: exp.Expr) -> exp.Expr:
        """The expression with references to passed columns; changes it in place."""
        if self._is_unit(node):
            return exp.column(self._name(node).copy(), table=self.alias.copy())
        for child in list(node.iter_expressions()):
            if not isinstance(child, (exp.Select, exp.SetOperation, exp.Subquery, exp.Star)):
                referring = self.refer(child)
                if referring is not child:
                    child.replace(referring)
        return node

    def _name(self, node: exp.Expr) -> exp.Identifier:
        """The name under which an expression is passed on: of a column, its own if it is free."""
        text = key(node)
        if text in self.columns:
            return self.columns[text][0]
        taken = {name.name.lower() for name, _ in self.columns.values()}
        is_column = isinstance(node, exp.Column)
        if is_column and self.has_all:
            return cast(exp.Identifier, node.this)
        if is_column and node.name.lower() not in taken:
            name = node.this
        else:
            name = exp.to_identifier(f"__c{len(self.columns)}")
        self.columns[text] = name, node.copy()
        return cast(exp.Identifier, name)

    def _is_unit(self, node: exp.Expr) -> bool:
        is_value = isinstance(node, exp.Condition) and not isinstance(
            node, (exp.If, exp.PropertyEQ, exp.Kwarg)
        )
        if not is_value or has_call(node):
            return False
        return (
            key(node) in self.whole
            or (isinstance(node, exp.Column) and not isinstance(node.this, exp.Star))
            or isinstance(node, _AGGREGATING)
            or is_aggregate(node)
            or node.find(exp.Select, exp.Lambda, exp.Comprehension) is not None
        )


class _Separation:
    """A query taken apart: the rows, which an inner query gives, and what is computed of them."""

    def __init__(
        self, select: exp.Select, names: Names, cheap: list[exp.Expr], smart: list[exp.Expr]
    ) -> None:
        self._select, self._smart = select, smart
        self._stars = [
            node
            for item in select.expressions
            for node in own(item)
            if isinstance(node, exp.Star) and not isinstance(node.parent, exp.Anonymous)
        ]
        alias = (_only_relation(select) if self._stars else None) or names.fresh("rows")
        distinct, group = select.args.get("distinct"), select.args.get("group")
        items = [item.unalias() for item in select.expressions if not has_call(item)]
        whole = {key(each) for each in (group.expressions if group is not None else [])}
        if distinct is not None and distinct.args.get("on") is None:
            whole |= {key(item) for item in items}
        self._passed = _Passed(exp.to_identifier(alias), whole, bool(self._stars))
        self._inner = exp.Select()
        for clause in _ROWS if smart else (*_ROWS, *_CUT):
            part = select.args.get(clause)
            if part:
                select.set(clause, None)
                self._inner.set(clause, part)
        if cheap:
            condition = conjunction([part.copy() for part in cheap])
            self._inner.set("qualify", exp.Qualify(this=condition))

    def carry_out(self, order: exp.Order | None) -> None:
        """Rearrange the query in place; `order` with positions and aliases written out."""
        select, inner, passed = self._select, self._inner, self._passed
        for item in list(select.expressions):
            if isinstance(item, exp.Alias):
                item.set("this", passed.refer(item.this))
            elif not item.is_star:
                name, referring = item.name, passed.refer(item)
                renamed = referring.name != name
                item.replace(exp.alias_(referring, name, quoted=True) if renamed else referring)
        condition = conjunction([part.copy() for part in self._smart])
        select.set("qualify", exp.Qualify(this=condition) if condition is not None else None)
        for clause in ("qualify", "distinct"):
            if select.args.get(clause) is not None:
                passed.refer(select.args[clause])
        if order is not None:
            if not self._smart:
                inner.set("order", order.copy())
            select.set("order", passed.refer(order))
        hidden = [name for name, node in passed.columns.values() if not _keeps(name, node)]
        for name, node in passed.columns.values():
            inner.append("expressions", node if _keeps(name, node) else exp.alias_(node, name))
        if self._stars:
            inner.set("expressions", [exp.Star(), *inner.expressions])
            for star in self._stars:
                excluded = [*(star.args.get("except_") or []), *(n.copy() for n in hidden)]
                star.set("except_", excluded)
        if not inner.expressions:
            inner.set("expressions", [exp.alias_(exp.Literal.number(1), "__c0")])
        source = exp.Subquery(this=inner, alias=exp.TableAlias(this=passed.alias))
        select.set("from_", exp.From(this=source))


def _keeps(name: exp.Identifier, node: exp.Expr) -> bool:
    """Whether a column has its name without being given it."""
    return isinstance(node, exp.Column) and node.name == name.name
