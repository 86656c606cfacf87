"""Which words of a query each node was read from, noted while sqlglot's parser reads it.

For `writer`, which uses these words again wherever a node still looks as it did.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.tokenizer_core import Token, TokenType

from smartsql.sql.normalise.syntax.trees import every

_KEY = "origin"
_READERS = (
    *("statement", "select", "with", "cte", "from", "join", "lateral", "table", "unnest", "where"),
    *("group", "having", "qualify", "order", "ordered", "limit", "offset", "table_sample"),
    *("pivot", "simplified_pivot", "named_window", "expression", "lambda", "disjunction"),
    *("equality", "bitwise", "unary", "field", "primary", "function", "case", "window"),
    "column_reference",
)
"""Methods of the parser that read a node from its first word to its last."""
_SIGNS = frozenset("+-*/<>=!@#%^&|~?:")
_OPENING = {TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE}
_CLOSING = {TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE}
_PIVOTS = {"PIVOT", "UNPIVOT"}
_FACTORIAL = "!"


class Origin:
    """Where a node was read: its words in the text, and what it looked like.

    Attributes:
        first: position of its first token.
        last: position of its last token.
        kind: its class.
        shape: its arguments, with the origins of its nearest parts in their places.
        parts: these origins, in the order of the text.
    """

    __slots__ = ("_source", "_text", "first", "kind", "last", "parts", "shape")

    def __init__(
        self,
        source: _Source,
        first: int,
        last: int,
        kind: type[exp.Expr],
        shape: tuple[tuple[str, Any], ...],
    ) -> None:
        self._source = source
        self.first, self.last, self.kind, self.shape = first, last, kind, shape
        self.parts: list[Origin] = []
        self._text: str | None = None

    def __deepcopy__(self, memo: object) -> Origin:
        return self  # copies of a node were read at the same place

    @property
    def is_whole(self) -> bool:
        """Whether all brackets in its words are closed."""
        return self._source.is_whole(self.first, self.last)

    @property
    def text(self) -> str:
        """Its words, as they are written."""
        if self._text is None:
            tokens = self._source.tokens
            self._text = self._source.text[tokens[self.first].start : tokens[self.last].end + 1]
        return self._text

    def with_parts(self, texts: dict[int, str]) -> str:
        """Its words, with other words for some of its parts (by the `id` of their origins)."""
        if not texts:
            return self.text
        tokens, text = self._source.tokens, self._source.text
        written, at = "", tokens[self.first].start
        for part in self.parts:
            piece = texts.get(id(part))
            if piece is not None:
                written = _joined(written, text[at : tokens[part.first].start])
                written = _joined(written, piece)
                at = tokens[part.last].end + 1
        return _joined(written, text[at : tokens[self.last].end + 1])


def _joined(left: str, right: str) -> str:
    """Both texts, with a space where they would run together."""
    if left and right and _run_together(left[-1], right[0]):
        return f"{left} {right}"
    return left + right


def _run_together(left: str, right: str) -> bool:
    return (_is_wordy(left) and _is_wordy(right)) or (left in _SIGNS and right in _SIGNS)


def _is_wordy(character: str) -> bool:
    return character.isalnum() or character in "_$\"'"


class _Source:
    """The text of a query, its tokens, and the number of brackets open before each."""

    __slots__ = ("_depths", "_starts", "text", "tokens")

    def __init__(self, text: str, tokens: list[Token]) -> None:
        self.text, self.tokens = text, tokens
        self._depths = [0]
        for token in tokens:
            step = (token.token_type in _OPENING) - (token.token_type in _CLOSING)
            self._depths.append(self._depths[-1] + step)

        self._starts = {token.start: place for place, token in enumerate(tokens)}

    def span_of(self, column: exp.Column) -> tuple[int, int] | None:
        """The tokens of a column, by the places of its names; None if they are not known."""
        places = [self._starts.get(part.meta_get("start", -1)) for part in column.parts]
        first, last = places[0], places[-1]
        return None if first is None or last is None or None in places else (first, last)

    def is_whole(self, first: int, last: int) -> bool:
        """Whether as many brackets are closed as opened."""
        return self._depths[first] == self._depths[last + 1]


def origin_of(node: exp.Expr) -> Origin | None:
    """Where a node, or the node it is a copy of, was read."""
    found = node.meta_get(_KEY)
    return found if isinstance(found, Origin) else None


def original(node: exp.Expr) -> str | None:
    """The words a node was read from, whatever became of it."""
    found = origin_of(node)
    return None if found is None else found.text


def _reader(name: str) -> Callable[..., Any]:
    """A method of the parser that notes which tokens it read a node from."""
    read = getattr(DuckDB.Parser, name)

    def noting(self: Any, *args: Any, **kwargs: Any) -> Any:
        first = self._index
        node = read(self, *args, **kwargs)
        # one that was handed its beginning did not read it itself
        if (
            self._index > first
            and isinstance(node, exp.Expr)
            and not ((args or kwargs) and _handed(args, kwargs))
        ):
            _note(self, node, first)
        return node

    return noting


def _handed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether its first words were read by who asked for it."""
    for value in args:
        if isinstance(value, exp.Expr):
            return True
    for name, value in kwargs.items():
        if isinstance(value, exp.Expr) or (value and name.startswith("skip_")):
            return True
    return False


def _note(parser: Any, node: exp.Expr, first: int) -> None:
    if not isinstance(node, exp.Identifier):
        if isinstance(node, exp.Pivot) and parser._tokens[first - 1].text.upper() in _PIVOTS:
            first -= 1
        node.meta[_KEY] = (first, parser._index - 1)


class SplicingParser(DuckDB.Parser):  # type: ignore[misc, valid-type]
    """Reads DuckDB's SQL and notes where each node was read."""

    _begun: list[int]

    def reset(self) -> None:
        """Forget the last text."""
        super().reset()
        self._begun = []

    def _parse_select_query(self, *args: Any, **kwargs: Any) -> exp.Expr | None:
        self._begun.append(self._index)
        try:
            return super()._parse_select_query(*args, **kwargs)  # type: ignore[no-any-return]
        finally:
            self._begun.pop()

    def _parse_type(self, *args: Any, **kwargs: Any) -> exp.Expr | None:
        first = self._index
        node = super()._parse_type(*args, **kwargs)
        while node is not None and self._curr and self._curr.text == _FACTORIAL:
            self._advance()
            node = exp.Anonymous(this="factorial", expressions=[node])
            _note(self, node, first)
        return node  # type: ignore[no-any-return]

    def _parse_set_operations(self, this: exp.Expr | None) -> exp.Expr | None:
        if self._begun and this is not None:  # the left side of a set operation
            first = self._begun[-1]
            opened = self._tokens[first].token_type == TokenType.L_PAREN
            if isinstance(this, exp.Subquery if opened else exp.Select):
                _note(self, this, first)
        return super()._parse_set_operations(this)  # type: ignore[no-any-return]


for _name in _READERS:
    setattr(SplicingParser, f"_parse_{_name}", _reader(f"_parse_{_name}"))


def remember(tree: exp.Expr, text: str, tokens: list[Token]) -> None:
    """Give the nodes of a tree that was just read their origins."""
    source = _Source(text, tokens)
    for node in every(tree, exp.SetOperation):
        _take_modifiers(node)
    _place(tree, source, [])


def _take_modifiers(node: exp.SetOperation) -> None:
    """ORDER BY and LIMIT behind the last query of a set operation are not that query's words."""
    last = node.expression
    owned = last.meta_get(_KEY)
    for key in ("order", "limit", "offset"):
        modifier = node.args.get(key)
        span = modifier.meta_get(_KEY) if modifier is not None else None
        if span and owned and owned[0] < span[0] <= owned[1]:
            owned = (owned[0], span[0] - 1)
            last.meta[_KEY] = owned


def _place(node: exp.Expr, source: _Source, parts: list[Origin]) -> Any:
    """Give a node its origin, parts first.

    Args:
        parts: where its origin goes; its parts', if it has none itself.

    Returns:
        Its origin; its class and shape, if it has none.
    """
    mine: list[Origin] = []
    shape: list[tuple[str, Any]] = []
    for key, value in node.args.items():
        if isinstance(value, exp.Expr):
            shape.append((key, _place(value, source, mine)))
        elif value.__class__ is list:
            if value:
                shape.append((key, [_item(item, source, mine) for item in value]))
        elif value is not None:
            shape.append((key, value))
    span = node.meta_get(_KEY)
    if span is None and isinstance(node, exp.Column):
        span = source.span_of(node)
    if span is not None:
        first, last = span
        origin = _fit(Origin(source, first, last, type(node), tuple(shape)), mine)
        if origin is not None:
            node.meta[_KEY] = origin
            parts.append(origin)
            return origin
        node.meta.pop(_KEY, None)
    parts += mine
    return type(node), tuple(shape)


def _item(value: Any, source: _Source, parts: list[Origin]) -> Any:
    return _place(value, source, parts) if isinstance(value, exp.Expr) else value


def _fit(origin: Origin, parts: list[Origin]) -> Origin | None:
    """The origin with its parts in the order of the text; None if they are not inside it."""
    if len(parts) > 1:
        parts.sort(key=lambda part: part.first)
        if any(a.last >= b.first for a, b in pairwise(parts)):
            return None
    if not origin.is_whole or (
        parts and (parts[0].first < origin.first or parts[-1].last > origin.last)
    ):
        return None
    origin.parts = parts
    return origin
