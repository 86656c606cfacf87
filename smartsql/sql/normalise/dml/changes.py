"""UPDATE and DELETE with calls: a query finds rows and values, the statement writes them.

UPDATE t SET x = smart_llm(r) FROM u WHERE t.k = u.k
UPDATE t SET x = __new.__v0 FROM (SELECT t.rowid AS __row, smart_llm(r) AS __v0 FROM t, u
    WHERE t.k = u.k) AS __new WHERE t.rowid = __new.__row
DELETE FROM t WHERE smart_llm(r) = 'spam'
DELETE FROM t WHERE t.rowid IN (SELECT t.rowid AS __row FROM t QUALIFY smart_llm(r) = 'spam')
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from smartsql.errors import UnplannableCallError
from smartsql.sql.normalise.text.shapes import Statement
from smartsql.sql.normalise.text.words import Words, call_texts


@dataclass(frozen=True, slots=True)
class Change:
    """A statement that changes rows, as a query and what is written around it.

    Attributes:
        source: the query that finds rows and values.
        write: the statement over a planned source.
        native: whether DuckDB runs the statement as it is if the source needs no planning.
        is_ours: whether it was written so by `write`.
    """

    source: str
    write: Callable[[str], str]
    native: bool
    is_ours: bool = False


def updated(statement: Statement) -> Change | None:
    """UPDATE as a change; None if it cannot be read.

    Raises:
        UnplannableCallError: a call in RETURNING, or DEFAULT and values in one row of them.
    """
    words = statement.words
    parts = _clauses(words, "SET", "FROM", "WHERE", "RETURNING")
    if "SET" not in parts:
        return None
    _refuse_returning(parts)
    table, name = _target(words, 1, words.find(("SET",), 0) or len(words))
    items = _assignments(parts["SET"])
    values = [f"{value} AS __v{i}" for i, (_, value) in enumerate(items) if not _is_default(value)]
    chosen = ", ".join([f"{name}.rowid AS __row", *values])
    relations = f"{table}, {parts['FROM']}" if "FROM" in parts else table
    where = f" WHERE {parts['WHERE']}" if "WHERE" in parts else ""
    source = f"{statement.with_}SELECT {chosen} FROM {relations}{where}"

    def write(planned: str) -> str:
        sets = ", ".join(
            f"{column} = " + (value if _is_default(value) else f"__new.__v{i}")
            for i, (column, value) in enumerate(items)
        )
        head = words.slice(0, (words.find(("SET",), 0) or 0) - 1)
        rows = f"FROM ({planned}) AS __new WHERE {name}.rowid = __new.__row"
        return f"{head} SET {sets} {rows}{_returning(parts)}"

    is_ours = f"{name}.rowid = __new.__row" in parts.get("WHERE", "")
    return Change(source, write, not call_texts(parts["SET"]), is_ours)


def deleted(statement: Statement) -> Change | None:
    """DELETE as a change; None if it deletes all rows or cannot be read.

    Raises:
        UnplannableCallError: a call in RETURNING.
    """
    words = statement.words
    parts = _clauses(words, "FROM", "USING", "WHERE", "RETURNING")
    _refuse_returning(parts)
    if "FROM" not in parts or not parts.keys() & {"USING", "WHERE"}:
        return None
    target = Words(parts["FROM"])
    table, name = _target(target, 0, len(target))
    relations = f"{table}, {parts['USING']}" if "USING" in parts else table
    where = f" WHERE {parts['WHERE']}" if "WHERE" in parts else ""
    source = f"{statement.with_}SELECT {name}.rowid AS __row FROM {relations}{where}"

    def write(planned: str) -> str:
        rows = f"{name}.rowid IN ({planned})"
        return f"DELETE FROM {table} WHERE {rows}{_returning(parts)}"

    return Change(source, write, native=True)


def _clauses(words: Words, *names: str) -> dict[str, str]:
    """Texts behind the given words outside brackets, each word in its turn, once."""
    marks: list[tuple[str, int]] = []
    at, left = 0, list(names)
    while (found := words.find(tuple(left), at) if left and at < len(words) else None) is not None:
        at = found + 1
        if words.is_any(found - 1, "DISTINCT"):  # IS DISTINCT FROM
            continue
        word = words.tokens[found].text.upper()
        marks.append((word, found))
        left = left[left.index(word) + 1 :]
    stops = [*[at for _, at in marks[1:]], len(words)]
    return {
        word: words.slice(at + 1, stop - 1) for (word, at), stop in zip(marks, stops, strict=True)
    }


def _target(words: Words, first: int, stop: int) -> tuple[str, str]:
    """A table as it is written, and the name by which its columns are called."""
    return words.slice(first, stop - 1), words.slice(stop - 1, stop - 1)


def _refuse_returning(parts: dict[str, str]) -> None:
    for call in call_texts(parts.get("RETURNING", "")):
        raise UnplannableCallError(
            call,
            "RETURNING",
            "Return the columns it needs, or select the changed rows afterwards with the call.",
        )


def _returning(parts: dict[str, str]) -> str:
    return f" RETURNING {parts['RETURNING']}" if "RETURNING" in parts else ""


def _is_default(value: str) -> bool:
    return value.upper() == "DEFAULT"


def _assignments(text: str) -> list[tuple[str, str]]:
    """Column and expression of each assignment; those of `(a, b) = (1, 2)` one by one.

    Raises:
        UnplannableCallError: columns and expressions of a row are not as many.
    """
    words = Words(text)
    items: list[tuple[str, str]] = []
    for first, last in words.listed(0, len(words)):
        equal = words.find(("=",), first, last + 1) or last
        if not words.is_any(first, "("):
            items.append((words.slice(first, equal - 1), words.slice(equal + 1, last)))
            continue
        opened = equal + 2 if words.is_any(equal + 1, "ROW") else equal + 1
        columns = words.listed(first + 1, words.closing(first))
        values = words.listed(opened + 1, words.closing(opened))
        whole = words.is_any(opened, "(") and words.closing(opened) == last
        whole = whole and not words.begins_query(opened)
        if not whole or len(columns) != len(values):
            calls = words.calls() or [(first, last)]
            raise UnplannableCallError(
                words.slice(*calls[0]),
                "SET of several columns at once",
                "Set each column by itself: SET a = .., b = ..",
            )
        items += [
            (words.slice(*column), words.slice(*value))
            for column, value in zip(columns, values, strict=True)
        ]
    return items
