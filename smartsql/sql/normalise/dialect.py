"""DuckDB's SQL in and out of sqlglot without changing what it says.

sqlglot translates between dialects and so likes to rename functions and to spell operators anew.
Here every function stays the one that was written: all calls are parsed as anonymous functions,
and what no rule changes keeps its words (see `splice`). What is spelled anew is compared with the
original by DuckDB's own parser, and the statement is refused instead of changed.
"""

from __future__ import annotations

import atexit
import json
import re
from functools import lru_cache
from threading import Lock
from typing import Any, ClassVar

import duckdb
from sqlglot import exp
from sqlglot.dialects.dialect import DialectType
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import Token, TokenType

from smartsql.sql.normalise.dots import restore_columns
from smartsql.sql.normalise.origins import Origin, SplicingParser, original, remember
from smartsql.sql.normalise.splice import Writer, proof

_SYNTAX = ("CAST", "TRY_CAST", "EXTRACT", "TRIM", "POSITION", "SUBSTRING", "OVERLAY")
"""Functions whose arguments are more than a list of expressions."""


class Faithful(DuckDB):
    """DuckDB's dialect with functions kept as written."""

    def to_json_path(self, path: exp.Expr | None) -> exp.Expr | None:
        """JSON paths stay the text they are."""
        return path

    def tokenize(self, sql: str, dialect: DialectType = None) -> list[Token]:
        """Tokens of a text; of the same text only once, since several steps ask for them."""
        return list(_tokens(sql))

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
def _tokens(text: str) -> tuple[Token, ...]:
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
    restore_columns(tree)
    remember(tree, text, tokens)
    return tree


def sql(node: exp.Expr) -> str:
    """The text of a node; of what no rule changed, as it was written."""
    return Writer(dialect=_dialect()).sql(node).strip()


def key(node: exp.Expr) -> str:
    """A text that is the same for nodes that are the same but for white space and comments."""
    return _words(sql(node))


@lru_cache(maxsize=1024)
def _words(text: str) -> str:
    return " ".join(text[token.start : token.end + 1] for token in _tokens(text))


def rewritten(query: str, tree: exp.Expr, origin: Origin | None) -> str | None:
    """The text of a query that the rules changed; None if it may not mean the same.

    Args:
        query: the text it was read from.
        tree: what the rules made of it.
        origin: of the whole query, as `parse` returned it.
    """
    if origin is None:
        return None
    writer = Writer(dialect=_dialect())
    text = writer.sql(tree).strip()
    before = _serialized(query)
    if before is not None:
        proven = _same_tree(before, _serialized(proof(origin, writer, brackets=True)))
        return text if proven and _is_readable(text) else None
    # DuckDB shows no tree of PIVOT: then nothing but names and white space may differ
    proven = _same_words(query, proof(origin, writer, brackets=False))
    return text if proven else None


def _same_words(left: str, right: str) -> bool:
    def words(text: str) -> list[str]:
        return [
            token.text if token.token_type in (TokenType.STRING, TokenType.IDENTIFIER)
            else token.text.upper()
            for token in _tokens(text)
        ]  # fmt: skip

    return words(left) == words(right)


def same_query(left: str, right: str) -> bool:
    """Whether DuckDB reads both texts as the same query; False if it cannot tell."""
    return _same_tree(_serialized(left), _serialized(right))


@lru_cache(maxsize=1)
def _dialect() -> Faithful:
    return Faithful()


def default_name(node: exp.Expr) -> str:
    """The name DuckDB gives to a column of this expression, as it was written, without alias."""
    return default_names([node])[0]


def default_names(items: list[exp.Expr]) -> list[str]:
    """Names that DuckDB gives to the items of a select list, as they were written."""
    texts = [original(item) or sql(item) for item in items]
    names = output_names(f"SELECT {', '.join(texts)}") if texts else []
    return names if len(names) == len(items) else texts


def output_names(query: str) -> list[str]:
    """Default names of the select list, as DuckDB would give them; stars are called "*".

    Of a set operation, those of its first query. Empty if DuckDB cannot say.
    """
    with _scratch_lock:
        row = _scratch().execute("SELECT json_serialize_sql(?)", [query]).fetchone()
        assert row is not None
        tree = json.loads(row[0])
        if tree.get("error"):
            return []
        node = tree["statements"][0]["node"]
        while node.get("left") or node.get("children"):
            node = node.get("left") or node["children"][0]
        return _names(node.get("select_list", []))


def _names(items: list[dict[str, Any]]) -> list[str]:
    """The names of the items of a select list."""
    frame = json.loads(_frame())
    texts = []
    for item in items:
        frame["statements"][0]["node"]["select_list"] = [item]
        texts.append("" if _plain_name(item) else json.dumps(frame))
    asked = [text for text in texts if text]
    query = "SELECT json_deserialize_sql(x) FROM (SELECT unnest(?::VARCHAR[]) AS x)"
    rows = _scratch().execute(query, [asked]).fetchall() if asked else []
    written = iter(str(row[0]).removeprefix("SELECT ") for row in rows)
    return [_plain_name(item) or next(written) for item in items]


def _plain_name(item: dict[str, Any]) -> str | None:
    """The name of an item that says it itself."""
    if item.get("alias"):
        return str(item["alias"])
    if item["class"] == "COLUMN_REF":
        return str(item["column_names"][-1])
    return "*" if item["class"] == "STAR" else None


@lru_cache(maxsize=1)
def _frame() -> str:
    row = _scratch().execute("SELECT json_serialize_sql('SELECT 1')").fetchone()
    assert row is not None
    return str(row[0])


@lru_cache(maxsize=1)
def aggregates() -> frozenset[str]:
    """Names of DuckDB's aggregate functions."""
    listing = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = ?"
    with _scratch_lock:
        rows = _scratch().execute(listing, ["aggregate"]).fetchall()
    return frozenset(str(row[0]).lower() for row in rows)


@lru_cache(maxsize=1)
def pure_functions() -> frozenset[str]:
    """Names of DuckDB's scalar functions that give the same value for the same arguments.

    The date of today is among them: it stays the same within a statement.
    """
    return frozenset(_stabilities()) - volatile_functions()


@lru_cache(maxsize=1)
def volatile_functions() -> frozenset[str]:
    """Names of DuckDB's scalar functions that may give another value at each evaluation."""
    return frozenset(name for name, kinds in _stabilities().items() if "VOLATILE" in kinds)


@lru_cache(maxsize=1)
def _stabilities() -> dict[str, frozenset[str]]:
    listing = (
        "SELECT lower(function_name), list(DISTINCT stability) FROM duckdb_functions() "
        "WHERE function_type = ? GROUP BY ALL"
    )
    with _scratch_lock:
        rows = _scratch().execute(listing, ["scalar"]).fetchall()
    return {str(name): frozenset(kinds) for name, kinds in rows}


_scratch_lock = Lock()


@lru_cache(maxsize=1)
def _scratch() -> duckdb.DuckDBPyConnection:
    """A connection of our own, only to parse; no statement of a user runs on it."""
    con = duckdb.connect(":memory:", config={"threads": 1})
    atexit.register(con.close)
    return con


def _serialized(text: str) -> str | None:
    """DuckDB's parse tree of a query as JSON, without positions; None if it shows none."""
    with _scratch_lock:
        row = _scratch().execute("SELECT json_serialize_sql(?)", [text]).fetchone()
    assert row is not None
    tree = _POSITION.sub("", str(row[0]))
    return None if tree.startswith('{"error":true') else tree


def _same_tree(left: str | None, right: str | None) -> bool:
    """Whether two such trees mean the same; False if there is none."""
    if left is None or right is None:
        return False
    return left == right or _canonical(json.loads(left)) == _canonical(json.loads(right))


_POSITION = re.compile(r',"query_location(?:_length)?":\d+')


def _is_readable(text: str) -> bool:
    """Whether DuckDB can read a query."""
    with _scratch_lock:
        row = (
            _scratch()
            .execute("SELECT json_serialize_sql(?)::JSON->>'error' = 'false'", [text])
            .fetchone()
        )
    return row is not None and bool(row[0])


_IGNORED = {"query_location", "query_location_length", "syntax_type"}
_POWER = {"^": "pow", "**": "pow", "power": "pow"}
_OPPOSITE = {"OPERATOR_IS_NULL": "OPERATOR_IS_NOT_NULL", "COMPARE_IN": "COMPARE_NOT_IN"}
_TYPES = {
    **dict.fromkeys(("TEXT", "STRING", "BPCHAR", "CHAR", "NVARCHAR"), "VARCHAR"),
    **dict.fromkeys(("INT", "INT4", "SIGNED", "INTEGER"), "INTEGER"),
    **dict.fromkeys(("INT8", "LONG", "BIGINT"), "BIGINT"),
    **dict.fromkeys(("INT2", "SHORT", "SMALLINT"), "SMALLINT"),
    **dict.fromkeys(("FLOAT4", "REAL", "FLOAT"), "FLOAT"),
    **dict.fromkeys(("FLOAT8", "DOUBLE"), "DOUBLE"),
    **dict.fromkeys(("BOOL", "LOGICAL", "BOOLEAN"), "BOOLEAN"),
    **dict.fromkeys(("NUMERIC", "DECIMAL"), "DECIMAL"),
    **dict.fromkeys(("BYTEA", "BINARY", "VARBINARY", "BLOB"), "BLOB"),
    **dict.fromkeys(("INT128", "HUGEINT"), "HUGEINT"),
    **dict.fromkeys(("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ"), "TIMESTAMPTZ"),
    **dict.fromkeys(("DATETIME", "TIMESTAMP"), "TIMESTAMP"),
}


def _canonical(tree: object) -> object:
    """A parse tree without positions and with one spelling for what means the same."""
    if isinstance(tree, list):
        return [_canonical(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    node: dict[str, Any] = {
        key: _canonical(value) for key, value in tree.items() if key not in _IGNORED
    }
    if node.get("type") == "OPERATOR_NOT":
        child: Any = node["children"][0]
        if child.get("type") in _OPPOSITE:
            return {**child, "type": _OPPOSITE[child["type"]]}
    path = node.get("qualified_name", {}).get("path") if "qualified_name" in node else None
    if path:  # repeats the name as it was written, behind its schema
        node["qualified_name"] = path[:-1]
    if node.get("class") == "CONJUNCTION":  # brackets make no difference
        node["children"] = [
            part
            for child in node["children"]
            for part in (child["children"] if child.get("type") == node["type"] else [child])
        ]
    if "function_name" in node:
        node["function_name"] = _POWER.get(node["function_name"], node["function_name"])
        node.pop("is_operator", None)
    if "type_name" in node:
        name = str(node["type_name"]).upper()
        node["type_name"] = _TYPES.get(name, name)
    return node
