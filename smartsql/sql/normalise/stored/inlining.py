"""Calls that are stored in the database: macros that lead to a call, written out where they stand.

    CREATE MACRO tone(x) AS smart_llm('Tone: ' || x)
    SELECT i FROM t WHERE tone(r) = 'a'
    SELECT i FROM t WHERE smart_llm('Tone: ' || r) = 'a'

and so for macros that give tables and for views, whose text takes the place of their name. What
is read from the catalog is read again whenever a statement names something that leads to a call.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import duckdb
from sqlglot import exp

from smartsql.sql.normalise.binding.names import Names, binder
from smartsql.sql.normalise.binding.outputs import keep_output_name, keep_output_names
from smartsql.sql.normalise.binding.scopes import Resolver, names_of, relations
from smartsql.sql.normalise.statements import query_portion
from smartsql.sql.normalise.stored.catalog import Macro, View, default_values, read_catalog, words
from smartsql.sql.normalise.syntax.dialect import parse, sql
from smartsql.sql.normalise.syntax.origins import origin_of
from smartsql.sql.normalise.syntax.proof import rewritten
from smartsql.sql.normalise.syntax.trees import every, in_order, nodes
from smartsql.sql.normalise.text.parameters import numbered_parameters, separated, spaced_parameters
from smartsql.sql.normalise.text.shapes import Statement, read
from smartsql.sql.normalise.text.words import Words, is_readable

MAX_STEPS = 200
"""Macros written out in one statement; more is a macro that calls itself."""

_CHANGES = re.compile(
    r"\b(create|attach|detach|use|drop|alter|import|rollback|persist|search_path|schema)\b",
    re.IGNORECASE,
)
_SIMPLE = (exp.Column, exp.Literal, exp.Anonymous, exp.Paren, exp.Subquery, exp.Null)


@dataclass
class Stored:
    """What one connection knows of macros and views that lead to smart calls."""

    _names: frozenset[str] = frozenset()
    _is_stale: bool = True

    def leads_to_call(self, text: str, con: duckdb.DuckDBPyConnection) -> bool:
        """Whether a text names a macro or view that leads to a smart call, as far as words tell.

        Reads the catalog once, and again after statements that may have changed it.
        """
        if self._is_stale:
            macros, views = read_catalog(con)
            self._names = frozenset({m.name for m in macros} | {v.name for v in views})
            self._is_stale = False
        if _CHANGES.search(text):
            self._is_stale = True
        return bool(self._names) and not self._names.isdisjoint(words(text))

    def written_out(self, text: str, con: duckdb.DuckDBPyConnection) -> str:
        """One or more statements with their macros and views that lead to calls written out.

        What cannot be written out without a doubt stays as it is, and runs where DuckDB can.
        """
        if not self.leads_to_call(text, con):
            return text
        macros, views = read_catalog(con)
        return "".join(_written_out(piece, macros, views, con) for piece in separated(text))


def _written_out(
    text: str, macros: list[Macro], views: list[View], con: duckdb.DuckDBPyConnection
) -> str:
    """One statement with its macros and views written out; as it is if there is none to."""
    if not is_readable(spaced_parameters(text)):
        return text
    numbered = numbered_parameters(spaced_parameters(text))
    statement = read(numbered)
    if statement is None or _defines_macro(statement):
        return text
    expansion = _Expansion(macros, views, con)
    found = query_portion(statement, binder(con))
    if found is None or not found.exact:
        written = expansion.calls_written_out(numbered)
        return text if written == numbered else written
    query = expansion.query_written_out(found.query)
    head, tail = (expansion.calls_written_out(part) for part in (found.head, found.tail))
    if (head, query, tail) == (found.head, found.query, found.tail):
        return text
    return f"{statement.prefix}{head}{query}{tail}{statement.end}"


def _defines_macro(statement: Statement) -> bool:
    words = statement.words
    near = min(6, len(words))
    return statement.kind == "CREATE" and words.find(("MACRO", "FUNCTION"), 0, near) is not None


class _Expansion:
    """Macros and views written out in one tree."""

    def __init__(
        self, macros: list[Macro], views: list[View], con: duckdb.DuckDBPyConnection
    ) -> None:
        self._macros = macros
        self._views = {view.name: view for view in views}
        self._con = con
        self._names = Names(binder(con))
        self._left: set[int] = set()

    def query_written_out(self, query: str) -> str:
        """A query with its macros and views written out, if that leaves the rest as it is."""
        tree = parse(query)
        if tree is None:
            return query
        root = origin_of(tree)
        if not self._expand(tree):
            return query
        return rewritten(query, tree, root) or query

    def calls_written_out(self, text: str) -> str:
        """Words that are no query, with calls of macros that give values written out."""
        words = Words(text)
        written, done = "", 0
        for at in range(len(words)):
            token = words.tokens[at]
            if token.start < done or not words.is_any(at + 1, "("):
                continue
            if not self._has(token.text, gives_table=False):
                continue
            last = words.closing(at + 1)
            call = f"SELECT {words.slice(at, last)}"
            tree = parse(call)
            if tree is None or not self._expand(tree):
                continue
            meaning = sql(tree.expressions[0].unalias())
            written += f"{text[done : token.start]}({meaning})"
            done = words.tokens[last].end + 1
        return written + text[done:]

    def _expand(self, tree: exp.Expr) -> bool:
        """Write out what can be, outer ones first; True if there was any."""
        changed = False
        for _ in range(MAX_STEPS):
            node = next((n for n in nodes(tree) if self._is_stored(n)), None)
            if node is None:
                return changed
            written = self._meaning(node)
            if written is None:
                self._left.add(id(node))
                continue
            keep_output_names(node)
            node.replace(written)
            changed = True
        return False  # it calls itself; DuckDB says so

    def _is_stored(self, node: exp.Expr) -> bool:
        if id(node) in self._left:
            return False
        if isinstance(node, exp.Table):
            if isinstance(node.this, exp.Anonymous):
                return not node.db and self._has(node.this.name, gives_table=True)
            return self._view(node) is not None
        call = node.expression if isinstance(node, exp.Dot) else node
        return (
            isinstance(call, exp.Anonymous)
            and not _is_form(node)
            and (call is not node or not isinstance(node.parent, exp.Dot))
            and self._has(call.name, gives_table=False)
        )

    def _has(self, name: str, *, gives_table: bool) -> bool:
        return any(m.name == name.lower() and m.gives_table == gives_table for m in self._macros)

    def _meaning(self, node: exp.Expr) -> exp.Expr | None:
        if isinstance(node, exp.Dot):
            call = self._undotted(node)
            if call is None:
                return None
            call.parent = node.parent  # where its arguments are looked up
            return self._expression(call)
        if not isinstance(node, exp.Table):
            assert isinstance(node, exp.Anonymous)
            return self._expression(node)
        if isinstance(node.this, exp.Anonymous):
            query = self._applied(node.this, gives_table=True)
            return None if query is None else _in_from(query, node, node.this.name, ())
        view = self._view(node)
        assert view is not None
        return self._view_query(view, node)

    def _undotted(self, node: exp.Dot) -> exp.Anonymous | None:
        """A call behind a dot: of a schema, or of a value that is its first argument."""
        call: exp.Anonymous = node.expression.copy()
        before: list[str] = []
        if isinstance(node.this, (exp.Dot, exp.Identifier)):
            before = [
                part.name.lower()
                for part in in_order(node.this)
                if isinstance(part, exp.Identifier)
            ]
        for macro in self._macros:
            if macro.name != call.name.lower() or macro.gives_table:
                continue
            if before and before == [part.lower() for part in macro.place][-len(before) :]:
                return call
        if isinstance(node.this, exp.Dot):
            return None
        first = exp.column(node.this.copy()) if isinstance(node.this, exp.Identifier) else node.this
        call.set("expressions", [first.copy(), *call.expressions])
        return call

    def _expression(self, call: exp.Anonymous) -> exp.Expr | None:
        """What a scalar macro stands for."""
        body = self._applied(call, gives_table=False)
        if body is None:
            return None
        value = body.expressions[0].unalias()
        value.pop()
        return value if isinstance(value, _SIMPLE) else exp.paren(value, copy=False)

    def _applied(self, call: exp.Anonymous, *, gives_table: bool) -> exp.Expr | None:
        """The body of a macro with the arguments of a call in place of its parameters."""
        bound = self._bound(call, gives_table=gives_table)
        body = None if bound is None else _body(bound[0])
        if bound is None or body is None:
            return None
        named = True
        if len(every(body, exp.Select)) > (not gives_table):
            named = self._named(call)
            bound = self._bound(call, gives_table=gives_table)
            assert bound is not None
        macro, arguments = bound
        for name, kind in zip(macro.parameters, macro.types, strict=True):
            if kind is not None:
                arguments[name] = exp.cast(arguments[name], kind)
        if not _substituted(body, arguments, named, gives_table=gives_table):
            return None
        return body

    def _bound(
        self, call: exp.Anonymous, *, gives_table: bool
    ) -> tuple[Macro, dict[str, exp.Expr]] | None:
        """The overload that a call means, with an argument for each parameter."""
        given: list[exp.Expr] = []
        named: dict[str, exp.Expr] = {}
        for argument in call.expressions:
            if isinstance(argument, (exp.PropertyEQ, exp.Kwarg)):
                named[argument.name.lower()] = argument.expression.copy()
            else:
                given.append(argument.copy())
        fitting = []
        for macro in self._macros:
            if macro.name != call.name.lower() or macro.gives_table != gives_table:
                continue
            arguments = dict(zip(macro.parameters, given, strict=False)) | named
            if len(given) + len(named) != len(arguments) or not set(named) <= set(macro.parameters):
                continue
            missing = [name for name in macro.parameters if name not in arguments]
            if missing:
                defaults = default_values(macro, self._con)
                arguments |= {n: _value(defaults[n]) for n in missing if n in defaults}
            if arguments.keys() == set(macro.parameters):
                fitting.append((macro, arguments, len(missing)))
        fitting.sort(key=lambda fit: fit[2])
        return fitting[0][:2] if fitting else None

    def _named(self, call: exp.Anonymous) -> bool:
        """Name the relations of the columns in the arguments; whether all could be named."""
        resolver = Resolver(self._names)
        for column, owner in resolver.owners(call):
            if owner is None or owner.relation is None or column.table:
                continue
            if owner.relation.alias_or_name:
                column.set("table", exp.to_identifier(owner.relation.alias_or_name, quoted=True))
        return all(column.table for column, _ in resolver.owners(call))

    def _view(self, table: exp.Table) -> View | None:
        view = self._views.get(table.name.lower())
        if view is None or isinstance(table.this, exp.Anonymous):
            return None
        if any(
            written and written.lower() != known.lower()
            for written, known in ((table.catalog, view.place[0]), (table.db, view.place[1]))
        ):
            return None
        return None if _is_with_name(table) else view

    def _view_query(self, view: View, table: exp.Table) -> exp.Expr | None:
        """The query of a view, unless names in it would mean something else here."""
        query = parse(view.body)
        if query is None:
            return None
        inside = {
            node.name.lower()
            for node in every(query, exp.Table)
            if not node.db and isinstance(node.this, exp.Identifier)
        }
        if inside & _with_names(table):
            return None
        return _in_from(query, table, table.name, view.columns)


def _is_form(node: exp.Expr) -> bool:
    """Whether a node is the function of FROM f(..), f(..) OVER .. or f(..) FILTER .."""
    return node.arg_key == "this" and isinstance(node.parent, (exp.Table, exp.Window, exp.Filter))


def _body(macro: Macro) -> exp.Expr | None:
    """The query of a macro; that of a value selects it."""
    return parse(macro.body if macro.gives_table else f"SELECT {macro.body}")


def _value(text: str) -> exp.Expr:
    tree = parse(f"SELECT {text}")
    assert tree is not None  # it was read from a tree
    value: exp.Expr = tree.expressions[0]
    value.pop()
    return value


def _substituted(
    body: exp.Expr, arguments: dict[str, exp.Expr], named: bool, *, gives_table: bool
) -> bool:
    """Put arguments in place of parameters; False if a name could mean something else there."""
    for column in every(body, exp.Column):
        if isinstance(column.this, exp.Star) or isinstance(column.parent, exp.Star):
            continue
        head = column.table.lower() or column.name.lower()
        if head not in arguments or column.args.get("db") is not None:
            continue
        around = _relations_around(column)
        if column.table and head in around:
            continue  # a relation of the macro's own
        argument = arguments[head].copy()
        inside = gives_table or column.find_ancestor(exp.Select) is not body
        read = every(argument, exp.Column)
        if inside and read and (not named or any(c.table.lower() in around for c in read)):
            return False
        if not isinstance(argument, _SIMPLE):
            argument = exp.paren(argument, copy=False)
        if column.table:
            argument = exp.Dot(this=exp.paren(argument), expression=column.this.copy())
        keep_output_name(column)
        column.replace(argument)
    return True


def _relations_around(node: exp.Expr) -> set[str]:
    """Names of the relations of the queries around a node."""
    found: set[str] = set()
    select = node.parent_select
    while select is not None:
        if isinstance(select, exp.Select):
            found |= {name for relation in relations(select) for name in names_of(relation)}
        select = select.parent_select
    return found


def _with_names(node: exp.Expr) -> set[str]:
    """Names of the WITH queries around a node."""
    found: set[str] = set()
    parent = node.parent
    while parent is not None:
        with_ = parent.args.get("with_")
        if with_ is not None:
            found |= {cte.alias.lower() for cte in with_.expressions}
        parent = parent.parent
    return found


def _is_with_name(table: exp.Table) -> bool:
    return not table.db and table.name.lower() in _with_names(table)


def _in_from(
    query: exp.Expr, table: exp.Table, name: str, columns: tuple[str, ...]
) -> exp.Subquery:
    """A query in the place of a table, with its alias and what else was said of it."""
    alias = table.args.get("alias")
    alias = alias.copy() if isinstance(alias, exp.TableAlias) else exp.TableAlias()
    if alias.this is None:
        alias.set("this", exp.to_identifier(name, quoted=True))
    if columns and not alias.args.get("columns"):
        alias.set("columns", [exp.to_identifier(column, quoted=True) for column in columns])
    subquery = exp.Subquery(this=query, alias=alias)
    for key in ("joins", "pivots", "sample"):
        if table.args.get(key):
            subquery.set(key, table.args[key])
    return subquery
