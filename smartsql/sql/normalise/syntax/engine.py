"""What DuckDB itself says of SQL: its parse tree, the names of outputs, and its functions.

It is asked on a connection of its own.
"""

from __future__ import annotations

import atexit
import json
import re
from functools import lru_cache
from threading import Lock
from typing import Any

import duckdb

_SERIALIZE = "json_serialize_sql(?, skip_default := true)"
_POSITION = re.compile(r',"query_location(?:_length)?":\d+')
_scratch_lock = Lock()


@lru_cache(maxsize=1)
def _scratch() -> duckdb.DuckDBPyConnection:
    """A connection of our own, only to parse; no statement of a user runs on it."""
    con = duckdb.connect(":memory:", config={"threads": 1})
    atexit.register(con.close)
    return con


def parse_tree(text: str) -> str | None:
    """DuckDB's parse tree of a query as JSON, without positions; None if it shows none."""
    tree = _serialized(text)
    return None if tree is None else _POSITION.sub("", tree)


@lru_cache(maxsize=16)
def _serialized(text: str) -> str | None:
    """DuckDB's parse tree of a query as JSON, but for what it takes for granted; None if none.

    Kept for a while: the steps of one planning ask about the same query.
    """
    with _scratch_lock:
        row = _scratch().execute(f"SELECT {_SERIALIZE}", [text]).fetchone()
    assert row is not None
    return None if str(row[0]).startswith('{"error":true') else str(row[0])


def is_query(text: str) -> bool:
    """Whether DuckDB can read a query."""
    try:
        with _scratch_lock:
            statements = _scratch().extract_statements(text)
    except duckdb.Error:
        return False
    return [statement.type for statement in statements] == [duckdb.StatementType.SELECT]


def output_names(query: str) -> list[str]:
    """Default names of the select list, as DuckDB would give them; stars are called "*".

    Of a set operation, those of its first query. Empty if DuckDB cannot say.
    """
    return list(_output_names(query))


@lru_cache(maxsize=256)
def _output_names(query: str) -> tuple[str, ...]:
    shown = _serialized(query)
    if shown is None:
        return ()
    node = json.loads(shown)["statements"][0]["node"]
    while node.get("left") or node.get("children"):
        node = node.get("left") or node["children"][0]
    with _scratch_lock:
        return tuple(_names(node.get("select_list", [])))


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
