"""Statements that change rows in place, and calls outside the query of a statement.

UPDATE t SET x = smart_llm(r) WHERE k = 3
UPDATE t SET x = __new.__v0 FROM (SELECT rowid AS __row, smart_llm(r) AS __v0 FROM t
    WHERE k = 3) AS __new WHERE t.rowid = __new.__row
DELETE FROM t WHERE smart_llm(r) = 'spam'
DELETE FROM t WHERE rowid IN (SELECT rowid FROM t QUALIFY smart_llm(r) = 'spam')
"""

from __future__ import annotations

from collections.abc import Callable

from sqlglot.tokenizer_core import Token, TokenType

from smartsql.errors import UnplannableCallError
from smartsql.sql.normalise.parameters import numbered_parameters
from smartsql.sql.normalise.text import (
    Portion,
    call_texts,
    is_word,
    tokens,
    top_level,
)

_STORED = (
    "Store answers instead: add a plain column and fill it with UPDATE .. SET x = smart_llm(..), "
    "or CREATE TABLE .. AS SELECT .., smart_llm(..)."
)


def refuse_around(found: Portion) -> None:
    """Refuse calls in what stands around the query of a statement.

    Raises:
        UnplannableCallError: INSERT .. ON CONFLICT, RETURNING, conditions of MERGE.
    """
    for text in (found.head, found.tail):
        for call in call_texts(text):
            raise UnplannableCallError(
                call,
                f"{found.kind} outside its query",
                "Compute it in the query (the source) as a column and refer to that column.",
            )


def rewrite_change(text: str, plan: Callable[[str], str]) -> str:
    """UPDATE and DELETE with calls, rewritten; other statements as they are, or refused.

    Args:
        plan: normalises a query.

    Raises:
        UnplannableCallError: definitions of tables and indexes, UPDATE .. FROM, DELETE .. USING.
    """
    found = tokens(text)
    words = {token.text.upper() for token in found[:6]}
    first = found[0].text.upper() if found else ""
    call = next(iter(call_texts(text)))
    if first == "UPDATE":
        return _update(numbered_parameters(text), plan, call)
    if first == "DELETE":
        return _delete(numbered_parameters(text), plan, call)
    if first == "CREATE" and "INDEX" in words:
        raise UnplannableCallError(call, "an index", _STORED)
    if (first == "CREATE" and "TABLE" in words and not words & {"MACRO", "FUNCTION"}) or (
        first == "ALTER"
    ):
        raise UnplannableCallError(call, "a DEFAULT, CHECK or generated column", _STORED)
    return text


def _clauses(text: str, words: tuple[str, ...]) -> tuple[dict[str, str], str, str]:
    """Texts behind the given words at top level, and what stands before and after all of them."""
    found = tokens(text)
    while found and found[-1].token_type == TokenType.SEMICOLON:
        found.pop()
    end = found[-1].end + 1
    marks: list[Token] = []
    for token in top_level(found):
        if any(is_word(token, word) for word in words) and all(
            mark.text.upper() != token.text.upper() for mark in marks
        ):
            marks.append(token)
    stops = [*[mark.start for mark in marks[1:]], end]
    parts = {
        mark.text.upper(): text[mark.end + 1 : stop].strip()
        for mark, stop in zip(marks, stops, strict=True)
    }
    return parts, text[: marks[0].start], text[end:]


def _target(text: str) -> tuple[str, str]:
    """A table as it is written, and the name by which its columns are called."""
    found = tokens(text)
    last = found[-1]
    return text.strip(), text[last.start : last.end + 1]


def _update(text: str, plan: Callable[[str], str], call: str) -> str:
    parts, head, rest = _clauses(text, ("SET", "FROM", "WHERE", "RETURNING"))
    items = _split(parts.get("SET", ""))
    if "FROM" in parts and not call_texts(f"{parts['SET']} {parts.get('WHERE', '')}"):
        planned = plan(f"SELECT * FROM {parts['FROM']}").removeprefix("SELECT * FROM ")
        return text.replace(parts["FROM"], planned)
    if "FROM" in parts or "SET" not in parts or any(item is None for item in items):
        raise UnplannableCallError(
            call,
            "UPDATE .. FROM" if "FROM" in parts else "SET of several columns at once",
            "Compute the call in a subquery of FROM: UPDATE t SET x = s.answer FROM "
            "(SELECT id, smart_llm(..) AS answer FROM ..) s WHERE t.id = s.id.",
        )
    _refuse_returning(parts, call)
    table, name = _target(head[len("UPDATE") :])
    values = ", ".join(f"{item[1]} AS __v{i}" for i, item in enumerate(items) if item)
    where = f" WHERE {parts['WHERE']}" if "WHERE" in parts else ""
    query = f"SELECT {name}.rowid AS __row, {values} FROM {table}{where}"
    source = plan(query)
    if source == query and not call_texts(parts["SET"]):
        return text
    sets = ", ".join(f"{item[0]} = __new.__v{i}" for i, item in enumerate(items) if item)
    returning = f" RETURNING {parts['RETURNING']}" if "RETURNING" in parts else ""
    condition = f"{name}.rowid = __new.__row{returning}{rest}"
    return f"{head}SET {sets} FROM ({source}) AS __new WHERE {condition}"


def _delete(text: str, plan: Callable[[str], str], call: str) -> str:
    parts, head, rest = _clauses(text, ("FROM", "USING", "WHERE", "RETURNING"))
    if "USING" in parts or "FROM" not in parts or "WHERE" not in parts:
        raise UnplannableCallError(
            call,
            "DELETE .. USING",
            "Find the rows in a subquery: DELETE FROM t WHERE id IN (SELECT .. QUALIFY ..).",
        )
    _refuse_returning(parts, call)
    table, name = _target(parts["FROM"])
    query = f"SELECT {name}.rowid AS __row FROM {table} WHERE {parts['WHERE']}"
    source = plan(query)
    if source == query:
        return text
    returning = f" RETURNING {parts['RETURNING']}" if "RETURNING" in parts else ""
    return f"{head}FROM {table} WHERE {name}.rowid IN ({source}){returning}{rest}"


def _refuse_returning(parts: dict[str, str], call: str) -> None:
    if call_texts(parts.get("RETURNING", "")):
        raise UnplannableCallError(call, "RETURNING", "Select the changed rows afterwards.")


def _split(assignments: str) -> list[tuple[str, str] | None]:
    """Column and expression of each assignment; None for what is not `column = expression`."""
    found = list(top_level(tokens(assignments)))
    commas = [token for token in found if token.token_type == TokenType.COMMA]
    starts = [0, *[comma.end + 1 for comma in commas]]
    stops = [*[comma.start for comma in commas], len(assignments)]
    items: list[tuple[str, str] | None] = []
    for start, stop in zip(starts, stops, strict=True):
        equal = next(
            (t for t in found if t.token_type == TokenType.EQ and start <= t.start < stop), None
        )
        left = assignments[start : equal.start].strip() if equal else ""
        if equal is None or left.startswith("("):
            items.append(None)
        else:
            items.append((left, assignments[equal.end + 1 : stop].strip()))
    return items
