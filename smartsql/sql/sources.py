"""The queries behind statements: what to look at before they run, to see what they would spend.

A statement that writes is seen through its query; EXECUTE through the prepared statement. Of
several statements all are seen as long as none reads what an earlier one changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import duckdb

from smartsql.errors import QueryError
from smartsql.sql.normalise import mentions_smart_call
from smartsql.sql.normalise.binding.names import binder
from smartsql.sql.normalise.previews import (
    execution,
    named_words,
    prepared_text,
    previewable,
    written_names,
)
from smartsql.sql.normalise.text.parameters import (
    is_blank,
    numbered_parameters,
    separated,
    spaced_parameters,
    used_parameters,
    with_values,
)
from smartsql.sql.previewing import call_sites

_DEFINITIONS = (
    "SELECT lower(view_name), sql FROM duckdb_views() WHERE NOT internal UNION ALL "
    "SELECT lower(function_name), macro_definition FROM duckdb_functions() "
    "WHERE NOT internal AND macro_definition IS NOT NULL"
)
_PREPARED = "SELECT statement FROM duckdb_prepared_statements() WHERE lower(name) = lower(?)"


@dataclass(frozen=True, slots=True)
class Source:
    """A query whose calls a statement would ask, and the parameters it needs."""

    query: str
    parameters: object = None


@dataclass
class _Before:
    """What the statements before one have done.

    Attributes:
        changed: names of what they may have changed; None if that may be anything.
        prepared: texts of what they prepared, by name.
    """

    changed: frozenset[str] | None = frozenset()
    prepared: dict[str, str] = field(default_factory=dict)

    def note(self, piece: str) -> None:
        """Take a statement in."""
        prepared = prepared_text(piece)
        if prepared is not None:
            self.prepared[prepared[0].lower()] = prepared[1]
        names = written_names(piece)
        both = self.changed is not None and names is not None
        self.changed = (self.changed or frozenset()) | (names or frozenset()) if both else None


def call_sources(
    con: duckdb.DuckDBPyConnection, text: str, parameters: object, plan: Callable[[str], str]
) -> list[Source]:
    """A query for each statement of a text that would ask; those without calls are left out.

    Args:
        con: looked at, and used to bind names; nothing runs.
        parameters: of the last statement.
        plan: makes of a query what DuckDB can run.

    Raises:
        QueryError: a statement with a call reads what an earlier one changes; EXECUTE of what
            was not prepared.
        duckdb.Error: a query that cannot be bound.
    """
    pieces = [piece for piece in separated(text) if not is_blank(piece)]
    before = _Before()
    found = []
    for place, piece in enumerate(pieces, 1):
        source = _source(con, piece, parameters if place == len(pieces) else None, before)
        if source is not None and _may_ask(con, source, before, piece):
            planned = plan(source.query)
            if mentions_smart_call(planned) or call_sites(con, planned, source.parameters):
                found.append(Source(planned, source.parameters))
        before.note(piece)
    return found


def _source(
    con: duckdb.DuckDBPyConnection, piece: str, parameters: object, before: _Before
) -> Source | None:
    """The query behind one statement; None if it runs none."""
    executed = execution(piece)
    columns_of = binder(con)
    if executed is None:
        query = previewable(piece, columns_of)
        if query is None:
            return None
        whole = query.strip() == numbered_parameters(spaced_parameters(piece)).strip(" \t\r\n;")
        return Source(query, parameters if whole else used_parameters(query, parameters))
    text = before.prepared.get(executed.name.lower())
    if text is None:
        row = con.execute(_PREPARED, [executed.name]).fetchone()
        if row is None:
            raise QueryError(
                f"cannot preview EXECUTE {executed.name}: there is no prepared statement of this "
                f"name. Run its PREPARE first, or preview the statement itself."
            )
        text = str(row[0])
    query = previewable(text, columns_of)
    if query is None:
        return None
    query = with_values(query, executed.arguments)
    return Source(query, used_parameters(query, parameters))


def _may_ask(con: duckdb.DuckDBPyConnection, source: Source, before: _Before, piece: str) -> bool:
    """Whether a query may have calls, be they those of views.

    Raises:
        QueryError: it may, and depends on an earlier statement.
    """
    if before.changed == frozenset():
        return True
    words, asks = _reached(con, source.query)
    if asks and (before.changed is None or before.changed & words):
        raise QueryError(
            f"cannot preview {piece.strip()[:100]!r}: it depends on a statement before it, which "
            f"a preview does not run. Run the statements before it first, then preview it alone."
        )
    return asks


def _reached(con: duckdb.DuckDBPyConnection, query: str) -> tuple[frozenset[str], bool]:
    """Words of a query and of all views and macros it names; whether one mentions a call."""
    definitions = [(str(name), str(text)) for name, text in con.execute(_DEFINITIONS).fetchall()]
    words, asks = named_words(query), mentions_smart_call(query)
    todo = dict.fromkeys(name for name, _ in definitions if name in words)
    done: set[str] = set()
    while todo:
        name = next(iter(todo))
        del todo[name]
        done.add(name)
        for other, text in definitions:
            if other == name:
                words |= named_words(text)
                asks = asks or mentions_smart_call(text)
        todo |= dict.fromkeys(n for n, _ in definitions if n in words and n not in done)
    return words, asks
