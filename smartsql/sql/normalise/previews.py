"""Which query shows the calls of a statement, so that they can be previewed without running it."""

from __future__ import annotations

from dataclasses import dataclass

from smartsql.sql.normalise.dml.inserts import Columns
from smartsql.sql.normalise.statements import change_of, query_portion
from smartsql.sql.normalise.text.disguised import with_selects, with_subqueries
from smartsql.sql.normalise.text.parameters import is_blank, numbered_parameters, spaced_parameters
from smartsql.sql.normalise.text.shapes import after_explain, read
from smartsql.sql.normalise.text.words import Words

_HARMLESS = ("BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "CHECKPOINT", "ANALYZE")
_NAMED = ("TABLE", "VIEW", "MACRO", "FUNCTION", "TYPE", "SEQUENCE", "INDEX", "INTO", "UPDATE")


@dataclass(frozen=True, slots=True)
class Execution:
    """An EXECUTE: name of the prepared statement, and its arguments by name or number."""

    name: str
    arguments: dict[str, str]


def previewable(text: str, columns_of: Columns = lambda query: None) -> str | None:
    """A query with the calls that run when a statement runs; None if no query runs.

    Args:
        text: one statement; not EXECUTE, see `execution`.
        columns_of: names of the columns that a query text would have, or None.
    """
    numbered = with_subqueries(numbered_parameters(spaced_parameters(text)))
    statement = None if is_blank(text) else read(numbered)
    if statement is None or prepared_text(text) is not None:
        return None
    found = query_portion(statement, columns_of)
    if found is not None:
        return with_selects(found.query) if found.runs else None
    change = change_of(statement, columns_of)
    return None if change is None else with_selects(change.source)


def execution(text: str) -> Execution | None:
    """What an EXECUTE runs, EXPLAIN EXECUTE too; None for other statements."""
    statement = None if is_blank(text) else read(numbered_parameters(spaced_parameters(text)))
    if statement is None or statement.kind != "EXECUTE" or len(statement.words) < 2:
        return None
    words = statement.words
    arguments: dict[str, str] = {}
    if words.is_any(2, "("):
        for place, (first, last) in enumerate(words.listed(3, words.closing(2)), 1):
            named = words.is_any(first + 1, ":=", "=>")
            key = words.tokens[first].text if named else str(place)
            arguments[key] = words.slice(first + 2 if named else first, last)
    return Execution(words.tokens[1].text, arguments)


def explained_statement(text: str) -> tuple[str, str] | None:
    """An EXPLAIN with its options, and the statement behind it.

    None for other statements; EXPLAIN ANALYZE runs what it explains, so it is one of these.
    """
    words = Words(spaced_parameters(text))
    if not words.is_any(0, "EXPLAIN"):
        return None
    start = after_explain(words, 0)
    options = words.slice(0, start - 1)
    if start >= len(words) or any(words.is_any(at, "ANALYZE") for at in range(start)):
        return None
    return options, words.slice(start, len(words) - 1)


def prepared_text(text: str) -> tuple[str, str] | None:
    """Name and statement of a PREPARE; None for other statements."""
    if is_blank(text):
        return None
    words = Words(numbered_parameters(spaced_parameters(text)))
    begin = words.find(("AS",), 0)
    if not words.is_any(0, "PREPARE") or begin is None:
        return None
    return words.tokens[1].text, words.slice(begin + 1, len(words) - 1)


def written_names(text: str) -> frozenset[str] | None:
    """Names (lower case) of what a statement may change; None if that cannot be told."""
    statement = None if is_blank(text) else read(spaced_parameters(text))
    if statement is None:
        return frozenset()
    words = statement.words
    kind = statement.kind
    if kind == "SELECT" or kind in _HARMLESS or _is_only_told(statement.prefix):
        return frozenset()
    if kind == "COPY" and words.is_any(1, "("):
        return frozenset()
    if kind in ("INSERT", "UPDATE", "DELETE", "MERGE", "CREATE", "DROP", "ALTER"):
        return frozenset({_object(words)}) if _object(words) else None
    if kind == "SET" and words.is_any(1, "VARIABLE"):
        return frozenset({"getvariable"})
    return None


def _is_only_told(prefix: str) -> bool:
    """Whether what stands before a statement keeps it from running."""
    begun = Words(prefix)
    explained = begun.is_any(0, "EXPLAIN") and begun.find(("ANALYZE",), 0) is None
    return explained or begun.find(("PREPARE",), 0) is not None


def _object(words: Words) -> str:
    """The last part of the name of the table, view, .. that a statement is about."""
    at = 0
    for place in range(min(8, len(words))):
        is_delete = words.is_any(0, "DELETE") and words.is_any(place, "FROM")
        if is_delete or words.is_any(place, *_NAMED):
            at = place + 1
            break
    while words.is_any(at, "IF", "NOT", "EXISTS"):
        at += 1
    while words.is_any(at + 1, "."):
        at += 2
    return words.tokens[at].text.lower() if 0 < at < len(words) else ""


def named_words(text: str) -> frozenset[str]:
    """All words of a text, in lower case: no name that it mentions is missing."""
    return frozenset(token.text.lower() for token in Words(spaced_parameters(text)).tokens)
