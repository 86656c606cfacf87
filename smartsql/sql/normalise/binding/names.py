"""New names, and names of columns as DuckDB binds them on an empty or a real database.

A query's text tells its columns only with those of its relations; DuckDB is asked for them by
binding a probe, which runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import duckdb
from sqlglot import exp

from smartsql.sql.normalise.calls.clauses import is_call
from smartsql.sql.normalise.syntax.dialect import sql
from smartsql.sql.normalise.syntax.trees import copied, every, nodes

_FROM = ("from_", "joins", "laterals")
_MARKS = (exp.Placeholder, exp.Parameter)


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
        for clause in _FROM:
            if select.args.get(clause):
                probe.args[clause] = select.args[clause]  # they stay parts of the query
        ctes, recursive = _visible_ctes(select, probe)
        if ctes:
            probe.args["with_"] = exp.With(recursive=recursive)
            probe.args["with_"].args["expressions"] = ctes
        text = sql(_bindable(probe))
        if text not in self._bound:
            self._bound[text] = self.columns_of(text)
        columns = self._bound[text]
        return None if columns is None else list(columns)

    def columns(self, query: exp.Expr) -> list[str] | None:
        """Names of the columns of a planned query; None if DuckDB would refuse it."""
        probe = copied(query)
        _without_parameters(probe)
        columns = self.columns_of(sql(probe))
        return None if columns is None else list(columns)


def _without_parameters(query: exp.Expr) -> None:
    for mark in every(query, *_MARKS):
        mark.replace(exp.Null())


def _bindable(probe: exp.Select) -> exp.Select:
    """A query of which only names matter, without parameters and calls; copied if it has any.

    Parameters have no value yet, and calls may still stand where they cannot.
    """
    parts = nodes(probe)
    if not any(isinstance(part, _MARKS) or is_call(part) for part in parts):
        return probe
    probe = copied(probe)
    _without_parameters(probe)
    for call in [node for node in every(probe, exp.Anonymous) if is_call(node)]:
        call.replace(exp.cast(exp.Null(), "VARCHAR"))
    for inner in every(probe, exp.Select):
        inner.set("qualify", None)  # without its calls it may lack the window it needs
    return probe


def _visible_ctes(select: exp.Select, probe: exp.Select) -> tuple[list[exp.Expr], bool]:
    """The WITH queries that a query can name and a probe of it names, and whether they may recur.

    They are those around it, and those before its own.
    """
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
            ctes = known + ctes
            recursive = recursive or bool(with_.args.get("recursive"))
        if isinstance(node, exp.CTE):
            inside = node
        node = node.parent
    return _named(ctes, probe) if ctes else [], recursive


def _named(ctes: list[exp.Expr], probe: exp.Select) -> list[exp.Expr]:
    """Those WITH queries that a query names, or that others do which it names."""
    named: set[str] = set()
    kept: set[int] = set()
    waiting: list[exp.Expr] = [probe]
    while waiting:
        words = every(waiting.pop(), exp.Identifier, exp.Literal)
        named |= {str(word.this).lower() for word in words}
        new = [cte for cte in ctes if id(cte) not in kept and cte.alias.lower() in named]
        kept |= {id(cte) for cte in new}
        waiting += new
    return [cte for cte in ctes if id(cte) in kept]


def binder(con: duckdb.DuckDBPyConnection) -> Callable[[str], Sequence[str] | None]:
    """Column names of a query by binding it on a connection, without running it."""

    def columns_of(query: str) -> Sequence[str] | None:
        try:
            return list(con.sql(query).columns)
        except duckdb.Error:
            return None

    return columns_of
