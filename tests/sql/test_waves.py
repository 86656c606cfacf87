"""LIMIT and EXISTS above conditions on answers stop as soon as there is enough."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import duckdb
import pytest

from smartsql.sql.normalise.pushdown.waves import FIRST_WAVE
from smartsql.sql.session import Connection, connect
from tests.sql.doubles import RecordingEngine, tone

ROWS = 1000
TABLE = f"""
CREATE TABLE t AS SELECT i, i * 7919 % {ROWS} AS o, i % 5 AS k, 's' || i AS s,
    CASE WHEN i % 3 > 0 THEN 'n' || (i % 40) END AS n FROM range({ROWS}) x(i);
CREATE TABLE u AS SELECT i, i % 5 AS k FROM range(5) x(i);
"""


@pytest.fixture
def session(engine: RecordingEngine) -> Iterator[Connection]:
    with connect(engine=engine) as con:
        con.execute(TABLE)
        yield con


@pytest.fixture
def plain() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        con.execute("CREATE MACRO smart_llm(p) AS substr(md5(p::VARCHAR), 1, 1)")
        con.execute(TABLE)
        yield con


def waves(engine: RecordingEngine) -> list[int]:
    return [len(weights) for _, weights in engine.asked]


SAME = [
    "SELECT i FROM t WHERE smart_llm(s) > 'c' ORDER BY i LIMIT 3",
    "SELECT i, smart_llm(s) FROM t WHERE smart_llm(s) > 'c' ORDER BY o DESC LIMIT 3",
    "SELECT * FROM t WHERE smart_llm(s) = 'a' LIMIT 9",
    "SELECT o AS i, t.* FROM t WHERE k = 2 AND smart_llm(s) = 'a' LIMIT 9 OFFSET 4",
    "SELECT i FROM t WHERE smart_llm(n) = 'a' AND smart_llm(s) > 'c' ORDER BY o LIMIT 4",
    "SELECT i FROM t WHERE smart_llm(n) = 'a' OR smart_llm(s) > 'e' ORDER BY o LIMIT 4",
    "SELECT i FROM t WHERE NOT (k = 2 OR smart_llm(s) > 'c') ORDER BY o NULLS FIRST LIMIT 4",
    "SELECT t.i, u.i FROM t JOIN u USING (k) WHERE smart_llm(s || u.i) = 'a' ORDER BY o LIMIT 4",
    "SELECT i AS x, smart_llm(n) FROM t WHERE smart_llm(s) > 'c' ORDER BY x LIMIT 5",
    "SELECT i FROM t WHERE smart_llm(s) IS NULL LIMIT 3",
    "SELECT i FROM t WHERE smart_llm(s) > 'c' LIMIT 0",
    "SELECT i FROM t WHERE smart_llm(s) > 'c' LIMIT 5000",
    "SELECT o, max(s) FROM t GROUP BY o HAVING smart_llm(max(s)) > 'c' ORDER BY o LIMIT 3",
    "SELECT (SELECT i FROM t WHERE smart_llm(s) > 'c' ORDER BY o LIMIT 1) AS c",
    "SELECT i FROM u WHERE i IN (SELECT i FROM t WHERE smart_llm(s) > '7' ORDER BY i LIMIT 2)",
    "SELECT EXISTS (SELECT 1 FROM t WHERE smart_llm(s) = 'a' AND k = 3)",
    "SELECT i FROM u WHERE NOT EXISTS (SELECT i, s FROM t WHERE smart_llm(s) = 'z' AND k = 3)",
    "SELECT rowid, i FROM t WHERE smart_llm(s) = 'a' ORDER BY rowid LIMIT 3",
    "SELECT count(*) FROM (SELECT i FROM t WHERE smart_llm(s) > '3' LIMIT 30)",
]


@pytest.mark.parametrize("query", SAME)
def test_waves_give_the_rows_names_and_types_of_the_text_as_written(
    query: str, session: Connection, plain: duckdb.DuckDBPyConnection
) -> None:
    ours, theirs = session.execute(query), plain.execute(query)
    assert [c[:2] for c in ours.description] == [c[:2] for c in theirs.description]
    assert ours.fetchall() == theirs.fetchall()


@pytest.mark.parametrize("wanted", [1, 3, 20])
@pytest.mark.parametrize("letter", "02468ace")
def test_at_most_one_wave_more_than_needed_is_asked(
    wanted: int, letter: str, session: Connection, engine: RecordingEngine
) -> None:
    session.execute(f"SELECT i FROM t WHERE smart_llm(s) >= '{letter}' ORDER BY i LIMIT {wanted}")
    hits = [i for i in range(ROWS) if tone(f"s{i}") >= letter]
    needed = hits[wanted - 1] + 1 if len(hits) >= wanted else ROWS
    sizes = waves(engine)
    assert sum(sizes[:-1]) < needed <= sum(sizes)
    assert sizes[0] == max(FIRST_WAVE, 2 * wanted)
    assert all(later <= 2 * earlier for earlier, later in pairwise(sizes))


def test_waves_double_so_that_few_sets_ask_about_all_rows(
    session: Connection, engine: RecordingEngine
) -> None:
    assert session.execute("SELECT i FROM t WHERE smart_llm(s) = 'z' LIMIT 1").fetchall() == []
    assert waves(engine) == [16, 32, 64, 128, 256, 504]
    assert len(set(engine.prompts)) == len(engine.prompts) == ROWS


def test_the_second_condition_of_a_wave_is_asked_where_the_first_holds(
    session: Connection, engine: RecordingEngine
) -> None:
    session.execute("SELECT i FROM t WHERE smart_llm(s) > 'c' AND smart_llm(s || k) > '0' LIMIT 1")
    first = {f"s{i}" for i in range(FIRST_WAVE)}
    second = {f"s{i}{i % 5}" for i in range(FIRST_WAVE) if tone(f"s{i}") > "c"}
    assert [set(weights) for _, weights in engine.asked] == [first, second]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT i FROM t WHERE smart_llm(s) > 'c' ORDER BY smart_llm(s), i LIMIT 3",
        "SELECT DISTINCT smart_llm(s) FROM t WHERE smart_llm(s) > 'c' ORDER BY 1 LIMIT 3",
        "SELECT count(*) FROM t WHERE smart_llm(s) > 'c' LIMIT 3",
        "SELECT i, rank() OVER (ORDER BY i) FROM t WHERE smart_llm(s) > 'c' ORDER BY i LIMIT 3",
        "SELECT i FROM t WHERE smart_llm(s) > 'c' ORDER BY i LIMIT 1%",
        "SELECT i FROM t WHERE smart_llm(s) > 'c' AND random() < 2 ORDER BY i LIMIT 3",
    ],
)
def test_where_all_rows_count_all_are_asked_at_once(
    query: str, session: Connection, plain: duckdb.DuckDBPyConnection, engine: RecordingEngine
) -> None:
    assert session.execute(query).fetchall() == plain.execute(query).fetchall()
    assert waves(engine) == [ROWS]


def test_calls_with_groups_are_asked_at_once(session: Connection, engine: RecordingEngine) -> None:
    session.execute("SELECT i FROM t WHERE smart_llm(s, per := k) > 'c' ORDER BY i LIMIT 3")
    assert sum(waves(engine)) == ROWS


def test_a_parameter_for_the_limit_is_not_known_when_waves_are_planned(
    session: Connection, engine: RecordingEngine
) -> None:
    found = session.execute("SELECT i FROM t WHERE smart_llm(s) > ? ORDER BY i LIMIT ?", ["c", 2])
    assert found.fetchall() == [(i,) for i in range(ROWS) if tone(f"s{i}") > "c"][:2]
    assert waves(engine) == [ROWS]


def test_parameters_of_conditions_stay_parameters(
    session: Connection, engine: RecordingEngine
) -> None:
    query = "SELECT i FROM t WHERE k=? AND smart_llm(s)>? ORDER BY i LIMIT 2"
    found = session.execute(query, [3, "7"]).fetchall()
    assert found == [(i,) for i in range(3, ROWS, 5) if tone(f"s{i}") > "7"][:2]
    assert waves(engine) == [FIRST_WAVE]
