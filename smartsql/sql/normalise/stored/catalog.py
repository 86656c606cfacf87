"""Macros and views in a database's catalog that lead to a smart call."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import duckdb
from sqlglot import exp

from smartsql.sql.normalise.calls.clauses import NAMES
from smartsql.sql.normalise.syntax.dialect import parse, sql
from smartsql.sql.normalise.text.shapes import portion, read
from smartsql.sql.normalise.text.words import Words

_MACROS = (
    "SELECT function_name, parameters, parameter_types, macro_definition, function_type, "
    "database_name, schema_name FROM duckdb_functions() "
    "WHERE NOT internal AND macro_definition IS NOT NULL"
)
_VIEWS = (
    "SELECT view_name, sql, database_name, schema_name FROM duckdb_views() WHERE NOT internal "
    "AND view_name NOT IN (SELECT table_name FROM duckdb_tables() WHERE temporary)"
)
_PATH = "SELECT current_database(), current_schema()"
_OURS = NAMES | {"__smart_details", "__smart_answer", "__smart_collect", "__smart_seal"}
_WORD = re.compile(r'"(?:[^"]|"")*"|[^\W\d][\w$]*')


@dataclass(frozen=True, slots=True)
class Macro:
    """One overload of a macro.

    Attributes:
        parameters: their names in lower case.
        types: declared types, None where there is none.
        body: SQL text of the expression, or of the query if it gives a table.
        place: database and schema.
    """

    name: str
    parameters: tuple[str, ...]
    types: tuple[str | None, ...]
    body: str
    gives_table: bool
    place: tuple[str, str]


@dataclass(frozen=True, slots=True)
class View:
    """A view: the text of its query, and the names of its columns if it declares them."""

    name: str
    body: str
    columns: tuple[str, ...]
    place: tuple[str, str]


_T = TypeVar("_T", Macro, View)


def words(text: str) -> set[str]:
    """Names and keywords in a text, in lower case, without their quotes."""
    return {
        found.strip('"').replace('""', '"').lower() if found.startswith('"') else found.lower()
        for found in _WORD.findall(text)
    }


def read_catalog(con: duckdb.DuckDBPyConnection) -> tuple[list[Macro], list[View]]:
    """Macros and views that lead to a call; of equal names those that DuckDB finds first."""
    macros = [
        Macro(
            str(name).lower(),
            tuple(str(p).lower() for p in parameters),
            tuple(types),
            str(body),
            kind == "table_macro",
            (str(database), str(schema)),
        )
        for name, parameters, types, body, kind, database, schema in _fetch(con, _MACROS)
        if str(name).lower() not in _OURS
    ]
    views = [(str(n).lower(), str(t), (str(d), str(s))) for n, t, d, s in _fetch(con, _VIEWS)]
    leading = _leading([(m.name, m.body) for m in macros] + [(n, text) for n, text, _ in views])
    if not leading:
        return [], []
    path = [("temp", "main"), *[(str(d), str(s)) for d, s in _fetch(con, _PATH)]]
    return (
        _first([m for m in macros if m.name in leading], path),
        _first([view for v in views if v[0] in leading and (view := _view(*v))], path),
    )


def _first(found: list[_T], path: list[tuple[str, str]]) -> list[_T]:
    """Of things with the same name, those in the first place of a search path that has any."""
    kept: list[_T] = []
    for name in sorted({item.name for item in found}):
        same = [item for item in found if item.name == name]
        for place in path:
            here = [item for item in same if item.place == place]
            if here:
                kept += here
                break
    return kept


def _leading(bodies: Iterable[tuple[str, str]]) -> set[str]:
    """Names of those whose bodies lead to a smart call, over any number of others."""
    listed = [(name, words(body)) for name, body in bodies]
    leading: set[str] = set(_OURS)
    known = 0
    while known != len(leading):
        known = len(leading)
        leading |= {name for name, used in listed if not leading.isdisjoint(used - {name})}
    return leading - _OURS


def _fetch(con: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    """Rows of the catalog, whatever the connection is doing."""
    try:
        return con.sql(query).fetchall()
    except duckdb.Error:  # a result is being read, or the transaction has failed: ask beside it
        with con.cursor() as beside:
            return beside.execute(query).fetchall()


def _view(name: str, text: str, place: tuple[str, str]) -> View | None:
    """A view from the statement that would create it: its columns in brackets before AS."""
    statement = read(text)
    found = portion(statement) if statement is not None else None
    if found is None:
        return None
    head = Words(found.head)
    opened = next((at for at in range(len(head)) if head.is_any(at, "(")), None)
    columns: tuple[str, ...] = ()
    if opened is not None:
        listed = head.listed(opened + 1, head.closing(opened))
        columns = tuple(head.tokens[first].text for first, _ in listed)
    return View(name, found.query, columns, place)


def default_values(macro: Macro, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """SQL texts of a macro's default values; DuckDB tells them only where it refuses a call."""
    name = str(exp.to_identifier(macro.name, quoted=True).sql("duckdb"))
    call = f"{name}(__smart_unknown := 1)"
    try:
        con.sql(f"FROM {call}" if macro.gives_table else f"SELECT {call}")
    except duckdb.Error as error:
        for line in str(error).splitlines():
            tree = parse(f"SELECT {line.strip()}") if line.startswith("\t") else None
            candidate = tree.expressions[0] if tree is not None else None
            if not isinstance(candidate, exp.Anonymous):
                continue
            listed = [
                (a.name.lower(), a.expression if isinstance(a, exp.PropertyEQ) else None)
                for a in candidate.expressions
            ]
            if tuple(parameter for parameter, _ in listed) == macro.parameters:
                return {name: sql(value) for name, value in listed if value is not None}
    return {}
