"""DuckDB's SQL in and out of sqlglot without changing what it says.

sqlglot translates between dialects and so likes to rename functions. Here every function stays
the one that was written: all calls are parsed as anonymous functions. Whatever still comes out
differently is noticed by DuckDB's own parser, and the statement is refused instead of changed.
"""

from __future__ import annotations

import atexit
import json
from functools import lru_cache
from threading import Lock
from typing import Any, ClassVar

import duckdb
from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import ErrorLevel, SqlglotError

_SYNTAX = ("CAST", "TRY_CAST", "EXTRACT", "TRIM", "POSITION", "SUBSTRING", "OVERLAY")
"""Functions whose arguments are more than a list of expressions."""


class Faithful(DuckDB):
    """DuckDB's dialect with functions kept as written."""

    def to_json_path(self, path: exp.Expr | None) -> exp.Expr | None:
        """JSON paths stay the text they are."""
        return path

    class Tokenizer(DuckDB.Tokenizer):
        """Reads what follows EXPLAIN or PREPARE as any other text."""

        COMMANDS: ClassVar[set[Any]] = set()

    class Parser(DuckDB.Parser):  # type: ignore[misc, valid-type]
        """Knows no function by name."""

        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
            name: parse for name, parse in DuckDB.Parser.FUNCTION_PARSERS.items() if name in _SYNTAX
        }

    class Generator(DuckDB.Generator):  # type: ignore[misc, valid-type]
        """Leaves DISTINCT before several arguments alone."""

        MULTI_ARG_DISTINCT = True


def parse(text: str) -> exp.Expr | None:
    """The one statement of a text; None if sqlglot cannot read it."""
    try:
        statements = Faithful().parse(text)
    except SqlglotError:
        return None
    if len(statements) != 1 or isinstance(statements[0], exp.Command):
        return None
    return statements[0]


def sql(node: exp.Expr) -> str:
    """The text of a node."""
    # what sqlglot warns about comes out differently, and `same_query` refuses it
    return node.sql(
        dialect=Faithful, normalize_functions=False, unsupported_level=ErrorLevel.IGNORE
    )


def same_query(left: str, right: str) -> bool:
    """Whether DuckDB reads both texts as the same query; False if it cannot tell."""
    ours, theirs = _serialized(left), _serialized(right)
    return ours is not None and ours == theirs


def default_name(node: exp.Expr) -> str:
    """The name DuckDB gives to a column of this expression if it has no alias."""
    return output_names(f"SELECT {sql(node)}")[0]


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
        return [_name(item) for item in node.get("select_list", [])]


def _name(item: dict[str, Any]) -> str:
    """The name of one item of a select list."""
    if item.get("alias"):
        return str(item["alias"])
    if item["class"] == "COLUMN_REF":
        return str(item["column_names"][-1])
    if item["class"] == "STAR":
        return "*"
    frame = json.loads(_fetch("SELECT json_serialize_sql('SELECT 1')"))
    frame["statements"][0]["node"]["select_list"] = [item]
    return _fetch("SELECT json_deserialize_sql(?)", json.dumps(frame)).removeprefix("SELECT ")


def _fetch(query: str, *values: str) -> str:
    row = _scratch().execute(query, list(values)).fetchone()
    assert row is not None
    return str(row[0])


@lru_cache(maxsize=1)
def aggregates() -> frozenset[str]:
    """Names of DuckDB's aggregate functions."""
    listing = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = ?"
    with _scratch_lock:
        rows = _scratch().execute(listing, ["aggregate"]).fetchall()
    return frozenset(str(row[0]).lower() for row in rows)


_scratch_lock = Lock()


@lru_cache(maxsize=1)
def _scratch() -> duckdb.DuckDBPyConnection:
    """A connection of our own, only to parse; no statement of a user runs on it."""
    con = duckdb.connect(":memory:", config={"threads": 1})
    atexit.register(con.close)
    return con


def _serialized(text: str) -> object:
    with _scratch_lock:
        row = _scratch().execute("SELECT json_serialize_sql(?)", [text]).fetchone()
    assert row is not None
    tree = json.loads(row[0])
    return None if tree.get("error") else _canonical(tree["statements"])


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
    if "function_name" in node:
        node["function_name"] = _POWER.get(node["function_name"], node["function_name"])
        node.pop("is_operator", None)
    if "type_name" in node:
        name = str(node["type_name"]).upper()
        node["type_name"] = _TYPES.get(name, name)
    return node
