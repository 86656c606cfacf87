"""Queries in disguise: VALUES, and the text in `query('..')`, where they hold smart calls.

VALUES (1, smart_llm('a')), (2, 'b')
SELECT 1 AS col0, smart_llm('a') AS col1 UNION ALL SELECT 2, 'b'
FROM query('SELECT i FROM t WHERE smart_llm(r) = ''a''')
FROM (SELECT i FROM t WHERE smart_llm(r) = 'a')
"""

from __future__ import annotations

from smartsql.sql.normalise.text.words import Words, mentions_smart_call

_JOINED = ("UNION", "EXCEPT", "INTERSECT", "ALL", "NAME")


def with_subqueries(text: str) -> str:
    """The text with `query('..')` written as a subquery where its text mentions a smart call."""
    if "query" not in text.lower():
        return text
    words = Words(text)
    for at in range(len(words)):
        if not (
            words.is_any(at, "QUERY")
            and words.is_any(at + 1, "(")
            and words.is_string(at + 2)
            and words.is_any(at + 3, ")")
            and mentions_smart_call(words.tokens[at + 2].text)
        ):
            continue
        inner = Words(words.tokens[at + 2].text)
        query = inner.slice(0, len(inner) - 1)
        last = at + len(("query", "(", "..", ")")) - 1
        return with_subqueries(f"{words.before(at)}({query}){words.after(last)}")
    return text


def with_selects(text: str) -> str:
    """The text of a query with every VALUES that holds a smart call written with SELECT."""
    if "values" not in text.lower():
        return text
    words = Words(text)
    for at in range(len(words)):
        rows = value_rows(words, at)
        if not rows or not words.calls(at, rows[-1][1] + 1):
            continue
        last = rows[-1][1]
        query = _selects([_items(words, row) for row in rows])
        if words.is_any(at - 1, "FROM", ",", "JOIN", *_JOINED) or words.is_any(last + 1, *_JOINED):
            query = f"({query})"
        return with_selects(f"{words.before(at)}{query}{words.after(last)}")
    return text


def value_rows(words: Words, at: int) -> list[tuple[int, int]]:
    """The brackets of each row of the VALUES that stands here; none if there is no VALUES."""
    rows: list[tuple[int, int]] = []
    if not words.is_any(at, "VALUES"):
        return rows
    at += 1
    while words.is_any(at, "("):
        end = words.closing(at)
        rows.append((at, end))
        at = end + 2 if words.is_any(end + 1, ",") else len(words)
    return rows


def _items(words: Words, row: tuple[int, int]) -> list[str]:
    return [words.slice(*item) for item in words.listed(row[0] + 1, row[1])]


def _selects(rows: list[list[str]]) -> str:
    """One SELECT for each row; the first one names the columns as VALUES does."""
    first = ", ".join(f"{item} AS col{place}" for place, item in enumerate(rows[0]))
    others = [", ".join(row) for row in rows[1:]]
    return " UNION ALL ".join(f"SELECT {row}" for row in [first, *others])
