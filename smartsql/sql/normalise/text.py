"""Texts of statements: where they begin, and which part is the query."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import Token, TokenType

from smartsql.errors import QueryError
from smartsql.sql.normalise.dialect import Faithful

_MENTION = re.compile(r"smart_llm", re.IGNORECASE)
_OPENING = {TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE}
_CLOSING = {TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE}
_QUERY = {"SELECT", "WITH", "FROM", "VALUES", "PIVOT", "UNPIVOT"}


def mentions_smart_call(text: str) -> bool:
    """Whether a smart call may stand in a text; cheap, never wrongly False."""
    return _MENTION.search(text) is not None


@dataclass(frozen=True, slots=True)
class Portion:
    """A statement as three texts: what stands before its query, the query, what stands after.

    Attributes:
        kind: first word of the statement that holds the query, in capitals ("SELECT", "CREATE").
    """

    kind: str
    head: str
    query: str
    tail: str


def tokens(text: str) -> list[Token]:
    """Tokens of a text.

    Raises:
        QueryError: it cannot be read.
    """
    try:
        return list(Faithful().tokenize(text))
    except SqlglotError as error:
        raise QueryError(
            f"cannot find the words of {text.strip()[:200]!r}, so its smart_llm calls cannot be "
            f"planned ({error}). Check its quotes, or put the call into a SELECT list or QUALIFY."
        ) from error


def is_readable(text: str) -> bool:
    """Whether a text has tokens at all; one without closing quote has none."""
    try:
        return bool(tokens(text))
    except QueryError:
        return False


def statements(text: str) -> list[str]:
    """The statements of a text with their separators; joined they are the text again."""
    cuts = [
        token.end + 1
        for token, depth in _nested(tokens(text))
        if is_word(token, ";") and depth == 0
    ]
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    return [piece for piece in pieces if piece]


def portion(text: str) -> Portion | None:
    """The query inside a statement; None where there is none."""
    found = tokens(text)
    while found and is_word(found[-1], ";"):
        found.pop()
    if not found:
        return None
    span = _query_span(found)
    if span is None:
        return None
    first, last, kind = span
    start, end = found[first].start, found[last].end + 1
    return Portion(kind, text[:start], text[start:end], text[end:])


def is_word(token: Token, text: str) -> bool:
    """Whether a token is this word or sign, and not a name or a text that spells it."""
    return token.text.upper() == text and token.token_type not in {
        TokenType.STRING,
        TokenType.IDENTIFIER,
    }


def call_texts(text: str) -> list[str]:
    """Texts of the smart calls in a text, as far as tokens tell."""
    found = tokens(text)
    calls = []
    for at, token in enumerate(found[:-1]):
        if not _MENTION.fullmatch(token.text) or token.token_type == TokenType.STRING:
            continue
        if found[at + 1].token_type != TokenType.L_PAREN:
            continue
        depth, end = 0, found[at + 1].end
        for other in found[at + 1 :]:
            depth += (other.token_type in _OPENING) - (other.token_type in _CLOSING)
            end = other.end
            if depth == 0:
                break
        calls.append(text[token.start : end + 1])
    return calls


def top_level(found: list[Token]) -> Iterator[Token]:
    """Tokens outside all brackets."""
    return (token for token, depth in _nested(found) if depth == 0)


def _nested(found: list[Token]) -> Iterator[tuple[Token, int]]:
    """Tokens with the number of brackets around them."""
    depth = 0
    for token in found:
        if token.token_type in _CLOSING:
            depth -= 1
        yield token, depth
        if token.token_type in _OPENING:
            depth += 1


def _query_span(found: list[Token]) -> tuple[int, int, str] | None:
    """First and last token of the query, and the kind of statement around it."""
    marks = _Marks(found)
    start = _after_prefixes(found, marks)
    if start >= len(found):
        return None
    last = len(found) - 1
    kind = found[start].text.upper()
    if kind in _QUERY or found[start].token_type == TokenType.L_PAREN:
        changes = {"INSERT", "UPDATE", "DELETE", "MERGE"}
        is_change = kind == "WITH" and marks.find(changes, start) is not None
        return None if is_change else (start, last, "SELECT")
    span = None
    if kind == "CREATE":
        head = {token.text.upper() for token in found[start : start + 6]}
        at = marks.find({"AS"}, start)
        if at is not None and head & {"TABLE", "VIEW"} and not head & {"MACRO", "FUNCTION"}:
            span = at + 1, last
    elif kind == "INSERT":
        begin = marks.find(_QUERY, start)
        if begin is not None:
            span = begin, marks.end_of_insert(begin, last)
    elif kind == "COPY" and found[start + 1].token_type == TokenType.L_PAREN:
        span = start + 2, marks.closing(start + 1) - 1
    elif kind == "MERGE":
        using = marks.find({"USING"}, start)
        if using is not None and found[using + 1].token_type == TokenType.L_PAREN:
            span = using + 2, marks.closing(using + 1) - 1
    return None if span is None else (*span, kind)


class _Marks:
    """Where words and brackets are among tokens."""

    def __init__(self, found: list[Token]) -> None:
        self._found = found
        self._depths = [depth for _, depth in _nested(found)]

    def find(self, words: set[str], start: int) -> int | None:
        """The first of the words outside brackets, from `start` on."""
        for index in range(start, len(self._found)):
            if self._depths[index] == 0 and any(is_word(self._found[index], w) for w in words):
                return index
        return None

    def closing(self, opened: int) -> int:
        """The bracket that closes the one at `opened`; the end if there is none."""
        for index in range(opened + 1, len(self._found)):
            if (
                self._depths[index] == self._depths[opened]
                and self._found[index].token_type in _CLOSING
            ):
                return index
        return len(self._found) - 1

    def end_of_insert(self, begin: int, last: int) -> int:
        """The last token before ON CONFLICT and RETURNING."""
        for word in ("CONFLICT", "RETURNING"):
            at = self.find({word}, begin)
            if at is not None:
                return at - (2 if word == "CONFLICT" else 1)
        return last


def _after_prefixes(found: list[Token], marks: _Marks) -> int:
    """Where the statement begins behind EXPLAIN, PREPARE .. AS, DESCRIBE, SUMMARIZE."""
    at = 0
    while at < len(found):
        if is_word(found[at], "EXPLAIN"):
            at += 1
            while at < len(found) and (
                is_word(found[at], "ANALYZE") or found[at].token_type == TokenType.L_PAREN
            ):
                at = marks.closing(at) + 1 if found[at].token_type == TokenType.L_PAREN else at + 1
        elif is_word(found[at], "PREPARE"):
            while at < len(found) and not is_word(found[at], "AS"):
                at += 1
            at += 1
        elif any(is_word(found[at], word) for word in ("DESCRIBE", "DESC", "SUMMARIZE", "SHOW")):
            at += 1
        else:
            return at
    return at
