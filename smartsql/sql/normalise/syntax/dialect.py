"""DuckDB's SQL in and out of sqlglot without changing what it says.

sqlglot translates between dialects and so likes to rename functions and to spell operators anew.
Here every function stays the one that was written: all calls are parsed as anonymous functions,
and what no rule changes keeps its words (see `writer`).
"""

from __future__ import annotations

from functools import lru_cache
from threading import local
from typing import Any, ClassVar

from sqlglot import exp
from sqlglot.dialects.dialect import DialectType
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import Token

from smartsql.sql.normalise.syntax.dots import restore_columns
from smartsql.sql.normalise.syntax.origins import SplicingParser, remember
from smartsql.sql.normalise.syntax.writer import Writer

_SYNTAX = ("CAST", "TRY_CAST", "EXTRACT", "TRIM", "POSITION", "SUBSTRING", "OVERLAY")
"""Functions whose arguments are more than a list of expressions."""


class Faithful(DuckDB):
    """DuckDB's dialect with functions kept as written."""

    def to_json_path(self, path: exp.Expr | None) -> exp.Expr | None:
        """JSON paths stay the text they are."""
        return path

    def tokenize(self, sql: str, dialect: DialectType = None) -> list[Token]:
        """Tokens of a text; of the same text only once, since several steps ask for them."""
        return list(tokenized(sql))

    class Tokenizer(DuckDB.Tokenizer):
        """Reads what follows EXPLAIN or PREPARE as any other text."""

        COMMANDS: ClassVar[set[Any]] = set()
        HEX_STRINGS: ClassVar[list[str | tuple[str, str]]] = [("x'", "'"), ("X'", "'")]
        BIT_STRINGS: ClassVar[list[str | tuple[str, str]]] = [("b'", "'"), ("B'", "'")]

    class Parser(SplicingParser):
        """Knows no function by name."""

        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
            name: parse for name, parse in DuckDB.Parser.FUNCTION_PARSERS.items() if name in _SYNTAX
        }

    class Generator(Writer):
        """Writes nodes with the words they were read from."""


@lru_cache(maxsize=256)
def tokenized(text: str) -> tuple[Token, ...]:
    """Tokens of a text, which are kept for a while: several steps ask for them."""
    return tuple(Faithful().tokenizer().tokenize(text))


def parse(text: str) -> exp.Expr | None:
    """The one statement of a text; None if sqlglot cannot read it."""
    dialect = Faithful()
    try:
        tokens = dialect.tokenize(text)
        trees = dialect.parser().parse(tokens, text)
    except SqlglotError:
        return None
    tree = trees[0] if len(trees) == 1 else None
    if tree is None or isinstance(tree, exp.Command):
        return None
    if "." in text:
        restore_columns(tree)
    remember(tree, text, tokens)
    return tree


def sql(node: exp.Expr) -> str:
    """The text of a node; of what no rule changed, as it was written."""
    writer = getattr(_kept, "writer", None)
    if writer is None:
        writer = _kept.writer = Writer(dialect=faithful())
    writer.begin()
    return str(writer.sql(node)).strip()


_kept = local()
"""A writer for each thread: to make one takes longer than most texts."""


def key(node: exp.Expr) -> str:
    """A text that is the same for nodes that are the same but for white space and comments."""
    return _words(sql(node))


@lru_cache(maxsize=1024)
def _words(text: str) -> str:
    return " ".join(text[token.start : token.end + 1] for token in tokenized(text))


@lru_cache(maxsize=1)
def faithful() -> Faithful:
    """The dialect."""
    return Faithful()
