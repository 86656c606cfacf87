"""Every statement gives what the same text gives over a pure function."""

from __future__ import annotations

from collections import Counter

import duckdb
import pytest

from smartsql.sql.session import Connection
from tests.sql.corpus import statements
from tests.sql.doubles import RecordingEngine

TABLE_FORM_OF_A_QUERY = "FROM smart_llm((SELECT i, r FROM t WHERE k = 2), r)"
"""DuckDB alone has no way to say this; the oracle names the query first."""


def described(con: Connection | duckdb.DuckDBPyConnection, query: str) -> tuple[object, object]:
    result = con.execute(query)
    columns = [(name, str(kind)) for name, kind, *_ in result.description]
    return columns, Counter(map(repr, result.fetchall()))


@pytest.mark.parametrize("query", statements("queries.sql"))
def test_rows_names_and_types_are_those_of_the_text_as_written(
    query: str, con: Connection, oracle: duckdb.DuckDBPyConnection
) -> None:
    plain = query
    if TABLE_FORM_OF_A_QUERY in query:
        plain = "WITH q AS (SELECT i, r FROM t WHERE k = 2) " + query.replace(
            TABLE_FORM_OF_A_QUERY, "FROM smart_llm(q, r)"
        )
    assert described(con, query) == described(oracle, plain)


@pytest.mark.parametrize("statement", statements("changes.sql"))
def test_changes_leave_the_table_as_the_text_says(
    statement: str, con: Connection, oracle: duckdb.DuckDBPyConnection
) -> None:
    changed = con.execute(statement).fetchall()
    assert changed == oracle.execute(statement).fetchall()
    assert described(con, "FROM s") == described(oracle, "FROM s")


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_all_rows_are_collected_before_the_first_answer(
    threads: int, con: Connection, engine: RecordingEngine
) -> None:
    con.execute(f"SET threads = {threads}")
    con.execute("CREATE TABLE big AS SELECT i, 'p' || (i % 1000) AS r FROM range(300000) x(i)")
    tones = con.execute("SELECT count(a) FROM (SELECT smart_llm(r) AS a FROM big)").fetchall()
    assert tones == [(300_000,)]
    assert engine.rows == [300_000]
    assert set(engine.asked[0][1].values()) == {300}
