"""A query without the conditions that depend on answers: what a call may be asked about at most.

While a query is previewed no answer is known, and a condition on one holds for no row. Wherever an
answer decides which rows come through, the condition is therefore put into a function of which
DuckDB does not know that it always holds. The calls themselves stay where they are.

Which columns hold answers is told by their names, in the whole statement: a column that merely has
the name of one lets more rows through, which is right for an upper bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
from sqlglot import exp

from smartsql.sql.normalise.calls.clauses import table_calls
from smartsql.sql.normalise.syntax.dialect import parse, sql
from smartsql.sql.normalise.text.words import mentions_smart_call
from smartsql.sql.sets import DETAIL

_OURS = ("smart_", "__smart_")
"""How the names of our functions begin."""
_ANYTHING = 42
"""The hash of no truth value; see `_passed`."""


@dataclass(frozen=True, slots=True)
class Wide:
    """A query in which no condition on an answer keeps a row away.

    Attributes:
        names: of columns that may hold answers, in lower case.
        whole: all such conditions are gone; else some join on answers is left.
    """

    query: str
    names: frozenset[str]
    whole: bool


def widened(query: str, con: duckdb.DuckDBPyConnection) -> Wide | None:
    """The query without its conditions on answers; None if it cannot be read.

    Args:
        con: knows the views; nothing is run but a look at the catalog.
    """
    tree = parse(query)
    if tree is None:
        return None
    tree = _with_views(tree, con)
    names = _answer_columns(tree)
    joins = [join.args["on"] for join in tree.find_all(exp.Join) if join.args.get("on")]
    whole = not any(_depends(condition, names) for condition in joins)
    for condition in list(_conditions(tree)):
        if _depends(condition, names) and _joins(condition):
            whole = False
        elif _depends(condition, names):
            condition.replace(_passed(condition))
    return Wide(sql(tree), names, whole)


def depends_on_answers(argument: str, names: frozenset[str]) -> bool:
    """Whether the text of an argument contains a call or a column of answers."""
    tree = parse(f"SELECT {argument}")
    return tree is None or _depends(tree, names)


def _with_views(tree: exp.Expr, con: duckdb.DuckDBPyConnection) -> exp.Expr:
    """The tree with views that contain calls written out."""
    rows = con.execute("SELECT lower(view_name), sql FROM duckdb_views() WHERE NOT internal")
    views = {name: text for name, text in rows.fetchall() if mentions_smart_call(text)}
    for _ in range(len(views)):  # views within views
        named = [t for t in tree.find_all(exp.Table) if t.name.lower() in views]
        if not named:
            break
        for table in named:
            created = parse(views[table.name.lower()])
            query = created.expression if isinstance(created, exp.Create) else None
            if query is None or isinstance(table.parent, exp.Create):
                continue
            alias = exp.TableAlias(this=exp.to_identifier(table.alias_or_name, quoted=True))
            table.replace(exp.Subquery(this=query.copy(), alias=alias))
    return tree


def _answer_columns(tree: exp.Expr) -> frozenset[str]:
    """Names of columns that may hold answers, in lower case."""
    names: set[str] = set()
    if table_calls(tree) or any(f.name.startswith("__smart") for f in tree.find_all(exp.Anonymous)):
        names |= set(DETAIL)
    while True:
        found = set(_named(tree, frozenset(names)))
        if found <= names:
            return frozenset(names - {""})
        names |= found


def _named(tree: exp.Expr, names: frozenset[str]) -> Iterator[str]:
    """Names that columns get whose expressions depend on answers."""
    for select in tree.find_all(exp.Select):
        for item in select.expressions:
            if _depends(item, names):
                plain = item.name if isinstance(item, exp.Column) else sql(item)
                yield (item.alias or plain).lower()
    for union in tree.find_all(exp.SetOperation):
        parts = [part.selects for part in (union.left, union.right) if isinstance(part, exp.Query)]
        for items in zip(*parts, strict=False):
            if any(_depends(item, names) for item in items):
                yield from (item.alias_or_name.lower() for item in items)
    for alias in tree.find_all(exp.TableAlias):
        if alias.columns and alias.parent is not None and _depends(alias.parent, names):
            yield from (column.name.lower() for column in alias.columns)


def _conditions(tree: exp.Expr) -> Iterator[exp.Expr]:
    """The conjuncts of all conditions on rows, those of outer queries first."""
    for clause in tree.find_all(exp.Where, exp.Having, exp.Qualify):
        whole = clause.this
        yield from whole.flatten() if isinstance(whole, exp.And) else (whole,)


def _depends(node: exp.Expr, names: frozenset[str]) -> bool:
    """Whether a call or a column of answers is in it."""
    return any(
        part.name.lower().startswith(_OURS)
        if isinstance(part, exp.Anonymous)
        # a column of the same name as the call it holds, unless it was given another
        else part.name.lower() in names
        for part in node.find_all(exp.Anonymous, exp.Column)
    )


def _joins(condition: exp.Expr) -> bool:
    """Whether it compares columns of two tables: without it there would be all pairs of rows."""
    if not isinstance(condition, exp.EQ):
        return False
    sides = [condition.this, condition.expression]
    tables = [{c.table for c in side.find_all(exp.Column)} for side in sides]
    return all(tables) and tables[0] != tables[1]


def _passed(condition: exp.Expr) -> exp.Expr:
    """A condition that holds for true, false and NULL, and whose calls are made all the same."""
    truth = exp.Anonymous(this="hash", expressions=[condition.copy()])
    return exp.NEQ(this=truth, expression=exp.Literal.number(_ANYTHING))
