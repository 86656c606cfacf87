"""The shape of a statement: what stands before it, the WITH of a change, and the query inside."""

from __future__ import annotations

from dataclasses import dataclass

from smartsql.sql.normalise.text.words import QUERY_WORDS, Words

CHANGES = ("INSERT", "UPDATE", "DELETE", "MERGE")
_SHOWS = ("DESCRIBE", "DESC", "SUMMARIZE", "SHOW")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement in parts, which joined are its text.

    Attributes:
        prefix: EXPLAIN .., PREPARE .. AS, DESCRIBE and what stands before them.
        with_: the WITH clause of a statement that changes rows; otherwise part of the query.
        words: the statement itself.
        end: what follows its last word.
    """

    prefix: str
    with_: str
    words: Words
    end: str

    @property
    def kind(self) -> str:
        """Its first word in capitals; "SELECT" for all queries."""
        return "SELECT" if self.words.begins_query(0) else self.words.tokens[0].text.upper()


@dataclass(frozen=True, slots=True)
class Portion:
    """A statement as three texts: what stands before its query, the query, what stands after.

    Attributes:
        kind: of the statement that holds the query.
        exact: whether joined they are the text that was read.
        runs: whether the query runs when the statement does.
    """

    kind: str
    head: str
    query: str
    tail: str
    exact: bool = True
    runs: bool = True


def read(text: str) -> Statement | None:
    """The parts of a statement; None if there are no words, or only those before a statement."""
    whole = Words(text)
    start = _after_prefixes(whole)
    if start >= len(whole):
        return None
    change = _change(whole, start)
    first = start if change is None else change
    return Statement(
        whole.before(start),
        "" if change is None else whole.text[whole.tokens[start].start : _start(whole, first)],
        Words(whole.slice(first, len(whole) - 1)),
        whole.after(len(whole) - 1),
    )


def portion(statement: Statement) -> Portion | None:
    """The query inside a statement that is no change of rows; None where there is none."""
    words, kind = statement.words, statement.kind
    last = len(words) - 1
    if kind == "SELECT":
        return Portion(kind, "", words.text, "")
    if kind == "CREATE":
        return _created(words, last)
    if kind == "COPY" and words.is_any(1, "("):
        return _between(words, kind, 2, words.closing(1) - 1)
    if kind == "SET" and (words.is_any(1, "VARIABLE") or words.is_any(2, "VARIABLE")):
        return _assigned(words, last)
    return None


def _start(words: Words, at: int) -> int:
    return words.tokens[at].start


def _after_prefixes(words: Words) -> int:
    """Where the statement begins behind EXPLAIN, PREPARE .. AS, DESCRIBE, SUMMARIZE."""
    at = 0
    while at < len(words):
        if words.is_any(at, "EXPLAIN"):
            at = after_explain(words, at)
        elif words.is_any(at, "PREPARE"):
            found = words.find(("AS",), at)
            at = len(words) if found is None else found + 1
        elif words.is_any(at, *_SHOWS):
            at += 1
        else:
            break
    return at


def after_explain(words: Words, at: int) -> int:
    """Where the statement behind an EXPLAIN begins; a query in brackets is no list of options."""
    at += 1
    if words.is_any(at, "ANALYZE"):
        at += 1
    if words.is_any(at, "(") and not words.begins_query(at):
        at = words.closing(at) + 1
    return at


def _change(words: Words, start: int) -> int | None:
    """Where the change behind a WITH clause begins; None if it is a query or has no WITH."""
    if not words.is_any(start, "WITH"):
        return None
    at = words.find((*QUERY_WORDS, *CHANGES), start + 1)
    while at is not None and words.is_any(at + 1, "AS", "("):  # the name of a CTE
        at = words.find((*QUERY_WORDS, *CHANGES), at + 1)
    return at if at is not None and words.is_any(at, *CHANGES) else None


def _between(words: Words, kind: str, first: int, last: int, *, runs: bool = True) -> Portion:
    query = words.slice(first, last)
    return Portion(kind, words.before(first), query, words.after(last), runs=runs)


def _created(words: Words, last: int) -> Portion | None:
    """CREATE TABLE, VIEW, TYPE and MACRO."""
    at = words.find(("AS",), 0)
    if at is None:
        return None
    if words.find(("MACRO", "FUNCTION"), 0, at) is not None:
        return _macro(words, at + 1, last)
    if words.find(("TYPE",), 0, at) is not None:
        is_query = words.are(at + 1, "ENUM", "(") and words.begins_query(at + 3)
        return _between(words, "CREATE", at + 3, words.closing(at + 2) - 1) if is_query else None
    if words.find(("TABLE", "VIEW"), 0, at) is None:
        return None
    runs = not words.are(last - 2, "WITH", "NO", "DATA")
    if not runs:
        last -= 3
    elif words.are(last - 1, "WITH", "DATA"):
        last -= 2
    return _between(words, "CREATE", at + 1, last, runs=runs)


def _macro(words: Words, body: int, last: int) -> Portion | None:
    """The query of a table macro, or of a scalar macro that is one subquery."""
    if words.is_any(body, "TABLE"):
        return _between(words, "CREATE", body + 1, last, runs=False)
    whole = words.is_any(body, "(") and words.begins_query(body) and words.closing(body) == last
    return _between(words, "CREATE", body + 1, last - 1, runs=False) if whole else None


def _assigned(words: Words, last: int) -> Portion | None:
    """SET VARIABLE: its expression as a query."""
    equal = words.find(("=", "TO"), 0)
    if equal is None:
        return None
    first = equal + 1
    if words.begins_query(first) and words.is_any(first, "(") and words.closing(first) == last:
        return _between(words, "SET", first + 1, last - 1)
    query = f"SELECT {words.slice(first, last)}"
    return Portion("SET", f"{words.before(first)}(", query, ")", exact=False)
