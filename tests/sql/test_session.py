"""A session behaves as the connection it holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from smartsql.errors import QueryError
from smartsql.sql.normalise import normalise
from smartsql.sql.session import Connection, connect
from tests.sql.doubles import RecordingEngine, tone


def test_duckdbs_own_methods_are_there(con: Connection) -> None:
    local = pa.table({"r": ["a", "b"]})
    assert con.execute("SELECT i FROM t ORDER BY i").fetchone() == (0,)
    assert con.fetchmany(2) == [(1,), (2,)]
    assert con.description[0][0] == "i"
    con.complete()
    assert con.sql("SELECT smart_llm(r) AS a FROM local").fetchall() == [(tone("a"),), (tone("b"),)]
    assert con.sql("SELECT count(*) FROM t WHERE smart_llm(r) = 'a'").columns == ["count_star()"]
    assert con.table("t").filter("k = 1").aggregate("count(*)").fetchall() == [(429,)]
    con.executemany("INSERT INTO s VALUES (?, ?, NULL)", [[1, "x"]])
    assert con.begin() is con and con.rollback() is con
    assert isinstance(con.cursor(), Connection)
    assert con.register("view_of_it", local) is con
    assert con.sql("FROM view_of_it").to_arrow_table().num_rows == 2
    with pytest.raises(AttributeError):
        _ = con.no_such_method


def test_a_relation_runs_when_it_is_read(con: Connection, engine: RecordingEngine) -> None:
    relation = con.sql("SELECT i FROM t WHERE smart_llm(r) = 'a'")
    assert isinstance(relation, duckdb.DuckDBPyRelation)
    assert engine.asked == []
    n_rows = len(relation.fetchall())
    assert relation.count("*").fetchall() == [(n_rows,)]
    assert len(engine.asked) == 2


def test_parameters_stay_bound_when_conditions_move(con: Connection) -> None:
    by_position = con.execute(
        "SELECT ?, i FROM t WHERE smart_llm(r || ?) = ? AND k = ? ORDER BY i",
        ["one", "x", "a", 3],
    ).fetchall()
    by_name = con.execute(
        "SELECT $one, i FROM t WHERE smart_llm(r || $x) = $a AND k = $k ORDER BY i",
        {"one": "one", "x": "x", "a": "a", "k": 3},
    ).fetchall()
    expected = [("one", i) for i in range(3, 3000, 7) if tone(f"review {i % 40}x") == "a"]
    assert by_position == by_name == expected


UNSPACED = {
    "SELECT i FROM t WHERE k<? AND smart_llm(r||?,?)=?": [3, "x", 0.2, "a"],
    "SELECT i FROM t WHERE k<?AND smart_llm(r||?,?)=?": [3, "x", 0.2, "a"],
    "SELECT i FROM t WHERE k<$1 AND smart_llm(r||$2,$3)=$4": [3, "x", 0.2, "a"],
    "SELECT i FROM t WHERE k<?1 AND smart_llm(r||?2,?3)=?4": [3, "x", 0.2, "a"],
    "SELECT i FROM t WHERE k<?::INT AND smart_llm(r||?::TEXT,?)=?": [3, "x", 0.2, "a"],
    "SELECT i FROM t WHERE k<$k AND smart_llm(r||$x,$d)=$a": {"k": 3, "x": "x", "d": 0.2, "a": "a"},
    "SELECT i FROM t WHERE k<$k AND smart_llm(r||$x||$$$$,$d)=$a||$t$$t$": {
        **{"k": 3, "x": "x", "d": 0.2, "a": "a"}
    },
    "SELECT i FROM t WHERE k<? AND r<>'$1?'/* ? /* ? */ ? */AND smart_llm(r||?,?)=?--?": [
        *(3, "x", 0.2, "a")
    ],
    "SELECT i FROM t WHERE k<[?,?][?] AND smart_llm(r||?)IN(?,?)": [3, 9, 1, "x", "a", "a"],
}


@pytest.mark.parametrize("query", UNSPACED)
def test_parameters_need_no_white_space(query: str, con: Connection) -> None:
    found = con.execute(query, UNSPACED[query]).fetchall()
    expected = [i for i in range(3000) if i % 7 < 3 and tone(f"review {i % 40}x") == "a"]
    assert sorted(found) == [(i,) for i in expected]


@pytest.mark.parametrize(
    ("change", "parameters"),
    [
        ("UPDATE s SET y=? WHERE id<? AND smart_llm(x||?,?)=?", ["new", 20, "x", 0.2, "a"]),
        ("UPDATE s SET y=$1 WHERE id<$2 AND smart_llm(x||$3,$4)=$5", ["new", 20, "x", 0.2, "a"]),
        ("UPDATE s SET y=smart_llm(x||?,?)WHERE id<?", ["x", 0.2, 20]),
        ("DELETE FROM s WHERE id<? AND smart_llm(x||?,?)=?", [20, "x", 0.2, "a"]),
        ("DELETE FROM s WHERE id<$1 AND smart_llm(x||$2,$3)=$4", [20, "x", 0.2, "a"]),
        (
            "INSERT INTO s SELECT i,r,? FROM t WHERE k<? AND smart_llm(r||?,?)=?",
            [*("new", 3, "x", 0.2, "a")],
        ),
    ],
)
def test_parameters_of_changes_need_no_white_space(
    change: str, parameters: list[object], con: Connection, oracle: duckdb.DuckDBPyConnection
) -> None:
    changed = con.execute(change, parameters).fetchall()
    assert changed == oracle.execute(change, parameters).fetchall()
    rows = con.execute("FROM s ORDER BY ALL").fetchall()
    assert rows == oracle.execute("FROM s ORDER BY ALL").fetchall()


def test_the_preview_of_a_query_takes_parameters_without_white_space(con: Connection) -> None:
    query = "SELECT i FROM t WHERE k<?AND smart_llm(r,?)=?"
    assert con.preview(query, [1, 0.2, "a"]) == [("preview", "r", 40, 429)]
    assert "smart_call" in con.execute(f"EXPLAIN {query}", [1, 0.2, "a"]).fetchall()[-1]


def test_text_without_a_closing_quote_is_refused_by_duckdb(con: Connection) -> None:
    text = "SELECT i FROM t WHERE smart_llm(r) = 'a"
    assert normalise(text, con._con) == text
    with pytest.raises(duckdb.ParserException, match="unterminated"):
        con.execute(text)
    with pytest.raises(QueryError, match="cannot find the words"):
        con.preview(text)


def ran(code: str) -> tuple[str, str]:
    """What a program of its own, in which a warning is an error, writes to stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return done.stdout, done.stderr


def test_arrow_comes_without_advice_for_our_own_code() -> None:
    code = (
        "from tests.sql.doubles import RecordingEngine\n"
        "from smartsql.sql.session import connect\n"
        "with connect(engine=RecordingEngine()) as con:\n"
        "    print(con.execute(\"SELECT smart_llm('x') AS a\").to_arrow_table().num_rows)\n"
        "    print(con.execute(\"SELECT smart_llm('x') AS a\").to_arrow_reader().read_all()\n"
        "        .num_rows)\n"
    )
    assert ran(code) == ("1\n1\n", "")


@pytest.mark.parametrize(
    "text",
    [
        "select  Smart_LLM( r )  -- as it is\n from t;",
        "SELECT 'WHERE smart_llm(x)' FROM t WHERE k=1",
        "INSERT INTO s SELECT i, r, smart_llm(r) FROM t RETURNING *",
        "SELECT smart_llm(r) AS a FROM t QUALIFY a = 'x' ORDER BY smart_llm(r)",
        "CREATE VIEW v AS SELECT smart_llm(r) FROM t",
        "COPY (SELECT smart_llm(r) FROM t) TO 'x.csv'",
        "FROM smart_llm(t, r, delta := 0.2)",
        "SELECT ?, smart_llm(?) FROM t WHERE k = ?",
        "SELECT ?,smart_llm(r||$$?$$,?)FROM t WHERE k<?",
        "SELECT $1,smart_llm($2)FROM t WHERE k=$3",
        "CREATE MACRO tone(x) AS smart_llm('Tone: ' || x)",
        "this is not SQL smart_llm(",
    ],
)
def test_texts_that_duckdb_can_run_are_left_alone(text: str, con: Connection) -> None:
    assert normalise(text, con._con) == text


def test_only_the_statement_that_needs_it_is_rewritten(con: Connection) -> None:
    text = "select 1 ;  SELECT i FROM t WHERE smart_llm(r) = ';' ;\n select  smart_llm( 'b' )"
    assert normalise(text, con._con) == (
        "select 1 ;  SELECT i FROM t QUALIFY smart_llm(r) = ';' ;\n select  smart_llm( 'b' )"
    )


def test_errors_without_a_call_are_duckdbs(con: Connection) -> None:
    with pytest.raises(duckdb.CatalogException):
        con.execute("SELECT * FROM nowhere")


def test_views_keep_the_planned_form_for_other_connections(
    con: Connection, engine: RecordingEngine
) -> None:
    con.execute("CREATE VIEW v AS SELECT i FROM t WHERE smart_llm(r) = 'a'")
    plain = con._con.cursor()
    assert len(plain.execute("FROM v").fetchall()) == len(con.execute("FROM v").fetchall()) > 0
    assert engine.rows == [3000, 3000]


def test_the_task_of_the_session_is_the_default(con: Connection, engine: RecordingEngine) -> None:
    con.execute("SELECT smart_llm('a')").fetchall()
    con.execute("SET VARIABLE smartsql_task = 'sentiment'")
    con.execute("SELECT smart_llm('a')").fetchall()
    con.execute("SELECT smart_llm('a', task := 'other')").fetchall()
    assert [call.task for call, _ in engine.asked] == [None, "sentiment", "other"]


def test_details_and_reports_are_tables(con: Connection, engine: RecordingEngine) -> None:
    engine.say = lambda text: None if text == "review 1" else "yes"
    rows = con.sql("SELECT * FROM smart_llm(t, r, delta := 0.2) WHERE i < 2 ORDER BY i")
    assert rows.columns == [
        *("i", "k", "g", "r", "n"),
        *("answer", "model", "source", "confidence", "cost_usd", "error"),
    ]
    assert [row[5:] for row in rows.fetchall()] == [
        ("yes", "double", "reference", 0.5, 0.01, None),
        (None, "double", "reference", 0.5, 0.01, "no answer"),
    ]
    reports = con.sql("FROM smart_reports()")
    assert reports.fetchall() == [("smart_llm(r, 0.2, 0.95)", 2)]
    con.execute("SELECT smart_llm('more')").fetchall()
    assert len(reports.fetchall()) == 2
    assert con.execute("FROM smart_models()").fetchall() == [("double", "reference")]
    assert con.execute("SELECT count(*), sum(cost_usd) FROM smart_ledger()").fetchall() == [
        (0, None)
    ]
    assert con.cursor().execute("SELECT count(*) FROM smart_reports()").fetchall() == [(2,)]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT i FROM t WHERE smart_llm(r) = 'a' AND k = 2",
        "CREATE TABLE made AS SELECT smart_llm(r) FROM t WHERE k = 2",
        "INSERT INTO s SELECT i, smart_llm(r), r FROM t WHERE k = 2",
        "CREATE VIEW made AS SELECT i FROM t WHERE smart_llm(r) = 'a' AND k = 2",
    ],
)
def test_a_preview_asks_nothing_and_writes_nothing(
    statement: str, con: Connection, engine: RecordingEngine
) -> None:
    assert con.preview(statement) == [("preview", "r", 40, 429)]
    assert engine.asked == []
    assert con.execute("SELECT count(*) FROM s").fetchall() == [(50,)]
    with pytest.raises(duckdb.CatalogException):
        con.execute("FROM made")


def test_the_database_file_can_be_opened_again_after_closing(
    tmp_path: Path, engine: RecordingEngine
) -> None:
    path = str(tmp_path / "shop.duckdb")
    for number in range(2):
        with connect(path, engine=engine) as con:
            con.execute("CREATE OR REPLACE TABLE t AS SELECT 'x' AS r")
            assert con.cursor().execute("SELECT smart_llm(r) FROM t").fetchall() == [(tone("x"),)]
            assert con._barrier.n_sets <= number + 2


def test_an_open_session_is_closed_quietly_at_exit() -> None:
    code = (
        "from tests.sql.doubles import RecordingEngine\n"
        "from smartsql.sql.session import connect\n"
        "con = connect(engine=RecordingEngine())\n"
        "other = con.cursor()\n"
        "print(con.execute(\"SELECT smart_llm('x') WHERE smart_llm('x') > ''\").fetchall())\n"
    )
    assert ran(code) == (f"[('{tone('x')}',)]\n", "")
