"""Texts of statements: their words, and where calls stand in them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import Token, TokenType

from smartsql.errors import QueryError
from smartsql.sql.normalise.calls.clauses import NAMES
from smartsql.sql.normalise.syntax.dialect import Faithful
from smartsql.sql.normalise.text.parameters import separated

_MENTION = re.compile("|".join(sorted(NAMES)), re.IGNORECASE)
_OPENING = {TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE}
_CLOSING = {TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE}
_TEXTS = {TokenType.STRING, TokenType.IDENTIFIER, TokenType.HEREDOC_STRING}
_STRINGS = {TokenType.STRING, TokenType.HEREDOC_STRING}

QUERY_WORDS = ("SELECT", "WITH", "FROM", "VALUES", "PIVOT", "UNPIVOT")
"""How queries begin."""


def mentions_smart_call(text: str) -> bool:
    """Whether a smart call may stand in a text; cheap, never wrongly False."""
    return _MENTION.search(text) is not None


def tokens(text: str) -> list[Token]:
    """Tokens of a text.

    Raises:
        QueryError: it cannot be read.
    """
    try:
        return list(Faithful().tokenize(text))
    except SqlglotError as error:
        raise QueryError(
            f"cannot find the words of {text.strip()[:200]!r}, so its smart calls cannot be "
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
    return separated(text)


def is_word(token: Token, text: str) -> bool:
    """Whether a token is this word or sign, and not a name or a text that spells it."""
    return token.text.upper() == text and token.token_type not in _TEXTS


class Words:
    """The words of a statement, without semicolons at its end.

    Positions that are out of range are no word at all, so that callers may look ahead.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        found = tokens(text)
        while found and is_word(found[-1], ";"):
            found.pop()
        self.tokens = found
        self._depths = [depth for _, depth in _nested(found)]

    def __len__(self) -> int:
        return len(self.tokens)

    def is_any(self, at: int, *words: str) -> bool:
        """Whether one of these words or signs (in capitals) stands here."""
        return 0 <= at < len(self) and any(is_word(self.tokens[at], word) for word in words)

    def are(self, at: int, *words: str) -> bool:
        """Whether these words stand here, one after the other."""
        return all(self.is_any(at + step, word) for step, word in enumerate(words))

    def is_string(self, at: int) -> bool:
        """Whether a text in quotes or dollars stands here."""
        return 0 <= at < len(self) and self.tokens[at].token_type in _STRINGS

    def begins_query(self, at: int) -> bool:
        """Whether a query may begin here, in brackets or not."""
        while self.is_any(at, "("):
            at += 1
        return self.is_any(at, *QUERY_WORDS)

    def find(self, words: tuple[str, ...], start: int, stop: int | None = None) -> int | None:
        """The first of the words outside brackets, from `start` on and before `stop`."""
        for at in range(start, len(self) if stop is None else stop):
            if self._depths[at] == self._depths[start] and self.is_any(at, *words):
                return at
        return None

    def closing(self, opened: int) -> int:
        """The bracket that closes the one at `opened`; the last word if there is none."""
        for at in range(opened + 1, len(self)):
            if self._depths[at] == self._depths[opened] and self.tokens[at].token_type in _CLOSING:
                return at
        return len(self) - 1

    def listed(self, start: int, stop: int) -> list[tuple[int, int]]:
        """First and last word of each item between commas, from `start` up to before `stop`."""
        if start >= stop:
            return []
        items = []
        while (comma := self.find((",",), start, stop)) is not None:
            items.append((start, comma - 1))
            start = comma + 1
        return [*items, (start, stop - 1)]

    def slice(self, first: int, last: int) -> str:
        """The text from one word to another, both included."""
        if last < first:
            return ""
        return self.text[self.tokens[first].start : self.tokens[last].end + 1]

    def before(self, at: int) -> str:
        """The text before a word; all of it behind the last one."""
        return self.text[: self.tokens[at].start] if at < len(self) else self.text

    def after(self, at: int) -> str:
        """The text behind a word."""
        return self.text[self.tokens[at].end + 1 :]

    def calls(self, start: int = 0, stop: int | None = None) -> list[tuple[int, int]]:
        """First and last word of each smart call that is in no other one."""
        found = []
        at, end = start, len(self) if stop is None else stop
        while at < end:
            token = self.tokens[at]
            named = _MENTION.fullmatch(token.text) and token.token_type not in _STRINGS
            if named and self.is_any(at + 1, "("):
                last = self.closing(at + 1)
                found.append((at, last))
                at = last
            at += 1
        return found


def call_texts(text: str) -> list[str]:
    """Texts of the smart calls in a text that are in no other one, as far as tokens tell."""
    words = Words(text)
    return [words.slice(first, last) for first, last in words.calls()]


def _nested(found: list[Token]) -> Iterator[tuple[Token, int]]:
    """Tokens with the number of brackets around them."""
    depth = 0
    for token in found:
        if token.token_type in _CLOSING:
            depth -= 1
        yield token, depth
        if token.token_type in _OPENING:
            depth += 1
