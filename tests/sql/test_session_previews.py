"""A preview shows what every kind of statement would ask, and asks and changes nothing."""

from __future__ import annotations

import json

import duckdb
import pytest

from smartsql.errors import QueryError, UnplannableCallError
from smartsql.sql.session import Connection
from tests.sql.doubles import RecordingEngine

VIEWS = """
CREATE VIEW v AS SELECT i, smart_llm(r) AS a FROM u;
CREATE VIEW w AS SELECT i FROM v WHERE a > '5';
CREATE MACRO toned() AS TABLE SELECT smart_llm(r) AS a FROM u;
"""
U = ("preview", "r", 30, 200)
S = ("preview", "x", 9, 50)
PREVIEWED = {
    "UPDATE s SET y = smart_llm(x)": [S],
    " UPDATE s SET y = smart_llm(x), x = DEFAULT WHERE id < 3": [("preview", "x", 3, 3)],
    "UPDATE s SET y = smart_llm(r) FROM u WHERE s.id = u.i": [("preview", "r", 30, 50)],
    "UPDATE s SET y = (SELECT max(a) FROM v)": [U],
    "DELETE FROM s WHERE smart_llm(x) > '5'": [S],
    "DELETE FROM s USING u WHERE s.id = u.i AND smart_llm(r) > '5'": [("preview", "r", 30, 50)],
    "INSERT INTO s VALUES (1, (SELECT max(smart_llm(r)) FROM u), 'b'), (2, 'c', NULL)": [U],
    "WITH q AS (SELECT i, r FROM u WHERE smart_llm(r) > '5') INSERT INTO s SELECT i, r, r FROM q": [
        U
    ],
    "CREATE TYPE e AS ENUM (SELECT DISTINCT r FROM u WHERE smart_llm(r) > '3')": [U],
    "CREATE TABLE n AS SELECT i FROM u WHERE smart_llm(r) = 'a' WITH NO DATA": [],
    "SET VARIABLE n = (SELECT max(smart_llm(r)) FROM u)": [U],
    "COPY (FROM w) TO 'never.csv'": [U],
    "PREPARE p AS SELECT smart_llm(r) FROM u": [],
    "EXPLAIN ANALYZE SELECT smart_llm(r) FROM u": [U],
    "FROM v": [U],
    "FROM toned()": [U],
    "SELECT count(*) FROM w": [U],
    "SELECT i FROM v": [],
    "SELECT 1": [],
    "DROP TABLE t": [],
    "DELETE FROM s": [],
    "CREATE TABLE n(i INTEGER)": [],
    "SELECT smart_llm(x) FROM s; BEGIN; SELECT smart_llm(r) FROM u; COMMIT; SELECT 1;": [S, U],
    "UPDATE s SET y = smart_llm(x); DELETE FROM u WHERE smart_llm(r) > '5'": [S, U],
    "INSERT INTO s VALUES (1, 'a', 'b'); FROM w": [U],
    "PREPARE p AS DELETE FROM u WHERE smart_llm(r) > $1; EXECUTE p('5')": [U],
}


@pytest.mark.parametrize("text", PREVIEWED)
def test_a_preview_reads_the_calls_of_a_statement(
    text: str, con: Connection, engine: RecordingEngine
) -> None:
    con.execute(VIEWS)
    before = con.execute("FROM s").fetchall()
    previews = [(one, *rest) for one, *rest in con.preview(text)]
    assert previews == PREVIEWED[text]
    assert con.has_calls(text) is bool(PREVIEWED[text])
    assert engine.asked == []
    assert con.execute("FROM s").fetchall() == before
    assert con.execute("SELECT count(*) FROM u").fetchall() == [(200,)]


@pytest.mark.parametrize(
    ("prepared", "executed", "parameters", "expected"),
    [
        ("SELECT smart_llm(r) FROM u WHERE i < $1", "EXECUTE p(7)", None, [("preview", "r", 7, 7)]),
        ("UPDATE s SET y = smart_llm(x) WHERE id < ?", "EXECUTE p(3)", None, None),
        (
            "DELETE FROM s WHERE smart_llm(x) > $a AND id < $b",
            "EXECUTE p(b := 3, a := '5')",
            *[None] * 2,
        ),
        (
            "INSERT INTO s SELECT id, x, smart_llm(x) FROM s WHERE id < ?",
            "EXECUTE p(3)",
            *[None] * 2,
        ),
        ("SELECT 1", "EXECUTE p", None, []),
    ],
)
def test_a_prepared_statement_is_previewed_with_its_arguments(
    prepared: str,
    executed: str,
    parameters: object,
    expected: list[object] | None,
    con: Connection,
    engine: RecordingEngine,
) -> None:
    con.execute(f"PREPARE p AS {prepared}")
    wanted = [("preview", "x", 3, 3)] if expected is None else expected
    assert con.preview(executed, parameters) == wanted
    shown = con.execute(f"EXPLAIN {executed}", parameters).fetchall()
    assert [value for key, value in shown if key == "smart_call"] == [str(p) for p in wanted]
    assert engine.asked == []
    assert con.execute("SELECT count(*), count(y) FROM s").fetchall() == [(50, 0)]


@pytest.mark.parametrize(
    ("change", "parameters"),
    [
        ("UPDATE s SET y = ? WHERE smart_llm(x) > ? AND id < ? RETURNING id + ?", ["n", "", 3, 1]),
        (
            "DELETE FROM s WHERE smart_llm(x) > $t AND id < $n RETURNING $o",
            {"t": "", "n": 3, "o": 1},
        ),
        (
            "INSERT INTO s SELECT id, x, ? FROM s WHERE smart_llm(x) > '' AND id < ? RETURNING ?",
            ["y", 3, 1],
        ),
    ],
)
def test_a_preview_takes_those_parameters_that_its_query_needs(
    change: str, parameters: object, con: Connection
) -> None:
    assert con.preview(change, parameters) == [("preview", "x", 3, 3)]


@pytest.mark.parametrize(
    "text",
    [
        "UPDATE u SET r = 'x'; SELECT smart_llm(r) FROM u",
        "CREATE TABLE n AS SELECT 1 AS a; SELECT smart_llm(a) FROM n",
        "INSERT INTO u VALUES (1, 1, 'a', 'b'); SELECT count(*) FROM w",
        "SET VARIABLE a = 1; SELECT smart_llm(getvariable('a'))",
        "USE memory; SELECT smart_llm(r) FROM u",
        "CREATE OR REPLACE MACRO toned() AS TABLE SELECT 1; FROM toned()",
    ],
)
def test_a_preview_of_statements_that_build_on_each_other_is_refused(
    text: str, con: Connection, engine: RecordingEngine
) -> None:
    con.execute(VIEWS)
    with pytest.raises(QueryError, match="depends on a statement before it"):
        con.preview(text)
    assert con.has_calls(text)
    assert engine.asked == engine.previewed == []


def test_a_preview_of_merge_counts_the_rows_that_come_to_the_action(con: Connection) -> None:
    matched = "MERGE INTO s USING u q ON s.id = q.i WHEN MATCHED AND q.i < 10 THEN UPDATE SET y = "
    assert [one[2:] for one in con.preview(matched + "smart_llm(q.r)")] == [(30, 50)]
    inserted = "MERGE INTO s USING u ON id = i WHEN NOT MATCHED THEN INSERT VALUES "
    assert [one[2:] for one in con.preview(inserted + "(i, w, smart_llm(w))")] == [(150, 150)]


def test_a_preview_refuses_what_cannot_be_planned(con: Connection) -> None:
    with pytest.raises(UnplannableCallError, match="RETURNING"):
        con.preview("DELETE FROM s RETURNING smart_llm(x)")
    with pytest.raises(QueryError, match="no prepared statement"):
        con.preview("EXECUTE nothing(1)")


EXPLAINED = [
    "EXPLAIN FROM v",
    "EXPLAIN SELECT i FROM w",
    "/* c */ EXPLAIN SELECT smart_llm(r) FROM u",
    "-- c\nexplain select smart_llm(r) from u",
    "SELECT 1; EXPLAIN SELECT smart_llm(r) FROM u",
    "EXPLAIN UPDATE s SET y = (SELECT max(a) FROM v)",
    "EXPLAIN CREATE TABLE n AS SELECT * FROM (SELECT * FROM (SELECT smart_llm(r) FROM u))",
    "EXPLAIN INSERT INTO s SELECT i, a, a FROM v",
    "EXPLAIN (FORMAT text) FROM v",
    "EXPLAIN (FROM v)",
]


@pytest.mark.parametrize("run", ["execute", "sql"])
@pytest.mark.parametrize("text", EXPLAINED)
def test_explain_shows_the_preview_wherever_the_call_is(
    text: str, run: str, con: Connection, engine: RecordingEngine
) -> None:
    con.execute(VIEWS)
    rows = getattr(con, run)(text).fetchall()
    assert [value for key, value in rows if key == "smart_call"] == [str(U)]
    assert rows[0][0].endswith("plan")
    assert engine.asked == []


@pytest.mark.parametrize("text", ["EXPLAIN SELECT 1", "EXPLAIN SELECT i FROM v", "EXPLAIN BEGIN"])
def test_explain_without_calls_is_duckdbs(
    text: str, con: Connection, oracle: duckdb.DuckDBPyConnection
) -> None:
    for some in (con, oracle):
        some.execute("CREATE VIEW v AS SELECT i, 1 AS a FROM u")
    assert con.execute(text).fetchall() == oracle.execute(text).fetchall()


def test_explain_of_what_is_not_there_keeps_duckdbs_error(con: Connection) -> None:
    with pytest.raises(duckdb.CatalogException, match="nowhere"):
        con.execute("EXPLAIN SELECT * FROM nowhere")


def test_explain_in_json_can_be_parsed_row_by_row(con: Connection, engine: RecordingEngine) -> None:
    rows = con.execute("EXPLAIN (FORMAT json) SELECT smart_llm(r) FROM u").fetchall()
    assert [key for key, _ in rows] == ["physical_plan", "smart_call"]
    plan, preview = (json.loads(value) for _, value in rows)
    assert plan[0]["name"] == "PROJECTION"
    assert preview == {"preview": str(U)}
    assert engine.asked == []


def test_explain_analyze_runs_and_asks(con: Connection, engine: RecordingEngine) -> None:
    con.execute("EXPLAIN ANALYZE SELECT smart_llm(r) FROM u").fetchall()
    assert engine.rows == [200]
