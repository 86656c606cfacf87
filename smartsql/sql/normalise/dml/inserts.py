"""INSERT: its query, with the WITH clause before it, and without columns that are all DEFAULT."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from smartsql.errors import UnplannableCallError
from smartsql.sql.normalise.text.disguised import value_rows
from smartsql.sql.normalise.text.shapes import Portion, Statement
from smartsql.sql.normalise.text.words import QUERY_WORDS, Words

Columns = Callable[[str], Sequence[str] | None]
"""Names of the columns that a query text would have, or None."""


def inserted(statement: Statement, columns_of: Columns) -> Portion | None:
    """An INSERT around its query; None where it has none (DEFAULT VALUES).

    Raises:
        UnplannableCallError: DEFAULT beside calls in some rows of a column, and not in others.
    """
    words = statement.words
    begin = _query(words)
    if begin is None:
        return None
    last = _last(words, begin)
    head, query, tail = words.before(begin), words.slice(begin, last), words.after(last)
    without = _without_defaults(words, begin, columns_of)
    if without is not None:
        head, query = without
    exact = without is None
    if statement.with_:
        query, exact = with_ctes(statement.with_, query), False
    return Portion("INSERT", head, query, tail, exact)


def with_ctes(with_: str, query: str) -> str:
    """A query behind a WITH clause that stood before the statement around it."""
    if Words(query).is_any(0, "WITH"):
        return f"{with_}SELECT * FROM ({query}) AS __query"
    return f"{with_}{query}"


def _query(words: Words) -> int | None:
    """Where the query begins; the list of columns before it is no query."""
    at = words.find((*QUERY_WORDS, "("), 0)
    while at is not None and not words.begins_query(at):
        at = words.find((*QUERY_WORDS, "("), words.closing(at))
    return None if at is None or words.is_any(at - 1, "DEFAULT") else at


def _last(words: Words, begin: int) -> int:
    """The last word before ON CONFLICT and RETURNING."""
    at = words.find(("ON",), begin)
    while at is not None and not words.is_any(at + 1, "CONFLICT"):
        at = words.find(("ON",), at + 1)
    if at is None:
        at = words.find(("RETURNING",), begin)
    return len(words) - 1 if at is None else at - 1


def _without_defaults(words: Words, begin: int, columns_of: Columns) -> tuple[str, str] | None:
    """Head and VALUES without the columns that are DEFAULT; None if there are none, or no calls."""
    rows = value_rows(words, begin)
    if not rows or not words.calls(begin):
        return None
    items = [words.listed(first + 1, last) for first, last in rows]
    marked = [
        {
            place
            for place, item in enumerate(row)
            if item[0] == item[1] and words.is_any(item[0], "DEFAULT")
        }
        for row in items
    ]
    if not any(marked):
        return None
    call = words.slice(*words.calls(begin)[0])
    names = _columns(words, begin, columns_of)
    if (
        any(places != marked[0] for places in marked)
        or names is None
        or any(len(row) != len(names) for row in items)
    ):
        raise UnplannableCallError(
            call,
            "VALUES with DEFAULT in some rows of a column",
            "Write one INSERT for the rows with DEFAULT and one for the others.",
        )
    kept = [place for place in range(len(names)) if place not in marked[0]]
    table_end = _table_end(words, begin)
    head = f"{words.slice(0, table_end)} ({', '.join(names[place] for place in kept)}) "
    values = ", ".join(
        f"({', '.join(words.slice(*row[place]) for place in kept)})" for row in items
    )
    return head, f"VALUES {values}"


def _table_end(words: Words, begin: int) -> int:
    """The last word of the table's name and alias."""
    opened = words.find(("(",), 0, begin)
    return (begin if opened is None else opened) - 1


def _columns(words: Words, begin: int, columns_of: Columns) -> list[str] | None:
    """The columns that are written, as they are spelled."""
    opened = words.find(("(",), 0, begin)
    if opened is not None:
        return [words.slice(*item) for item in words.listed(opened + 1, words.closing(opened))]
    into = words.find(("INTO",), 0, begin)
    if into is None:
        return None
    known = columns_of(f"SELECT * FROM {words.slice(into + 1, begin - 1)}")
    return None if known is None else ['"' + name.replace('"', '""') + '"' for name in known]
