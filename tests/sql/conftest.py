from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from smartsql.sql.session import Connection, connect, register
from tests.sql.comparing import Pair
from tests.sql.corpus import SETUP
from tests.sql.doubles import RecordingEngine


@pytest.fixture
def engine() -> RecordingEngine:
    return RecordingEngine()


@pytest.fixture
def con(engine: RecordingEngine) -> Iterator[Connection]:
    """A session over the tables of the corpus."""
    with connect(engine=engine) as session:
        session.execute(SETUP)
        yield session


@pytest.fixture
def bare(engine: RecordingEngine) -> Iterator[duckdb.DuckDBPyConnection]:
    """A plain DuckDB connection with the same functions and tables."""
    with duckdb.connect() as connection:
        register(connection, engine)
        connection.execute(SETUP)
        yield connection


@pytest.fixture
def oracle() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB alone, with the function of the double as a macro."""
    arguments = "delta := 0.1, gamma := 0.95, task := NULL, site := 0"
    with duckdb.connect() as connection:
        connection.execute(SETUP)
        connection.execute(
            f"CREATE MACRO smart_llm(prompt, {arguments}) AS substr(md5(prompt::VARCHAR), 1, 1)"
        )
        connection.execute(
            f"CREATE MACRO smart_llm(tbl, col, {arguments}) AS TABLE SELECT t.*, "
            "substr(md5(col::VARCHAR), 1, 1) AS answer, NULL AS model, NULL AS source, "
            "NULL AS confidence, NULL AS cost_usd, NULL AS error FROM query_table(tbl) t"
        )
        yield connection


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """A session beside plain DuckDB over the tables of the positions."""
    both = Pair()
    yield both
    both.close()
