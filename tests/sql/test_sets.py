"""Which rows are asked about: no more than needed, with their weights, once."""

from __future__ import annotations

import threading
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from smartsql.errors import LedgerError, ParameterError, QueryError, UnplannableCallError
from smartsql.sql.session import Connection, connect, open_session, register
from tests.sql.doubles import RecordingEngine, tone

NEEDED = {
    "SELECT i FROM t WHERE smart_llm(r || i) = 'a' AND k = 3": [429],
    "SELECT i FROM t WHERE k = 3 AND smart_llm(r || i) = 'a'": [429],
    "SELECT a.i FROM t a JOIN u b USING (i) WHERE smart_llm(a.r || i) = 'a' AND b.b = 1": [67],
    "SELECT i FROM t JOIN (SELECT i FROM u WHERE b = 1) USING (i) WHERE smart_llm(r) = 'a'": [67],
    "SELECT smart_llm(r) FROM t LIMIT 5": [5],
    "SELECT smart_llm(r) FROM t ORDER BY i DESC LIMIT 5": [5],
    "SELECT smart_llm(r) AS a FROM t ORDER BY a LIMIT 5": [3000],
    "SELECT smart_llm(n) FROM t": [2727],
    "SELECT smart_llm(NULL) FROM t": [],
    "SELECT smart_llm(r) FROM empty": [],
    "SELECT smart_llm(r), smart_llm(r) FROM t QUALIFY smart_llm(r) = 'a'": [3000],
    "SELECT smart_llm(r, 0.1), smart_llm(r, 0.2) FROM t": [3000, 3000],
    "SELECT smart_llm('same'), i FROM t": [3000],
    "SELECT smart_llm(r) FROM t UNION ALL SELECT smart_llm(r) FROM u": [3000, 200],
    "SELECT 1 FROM t a, (SELECT 'one' AS p FROM u) b WHERE smart_llm(b.p) = 'z'": [600_000],
    "WITH q AS (SELECT i, smart_llm(r) AS a FROM t) FROM q x JOIN q y USING (i)": [3000],
    "EXPLAIN SELECT smart_llm(r), smart_llm('c') FROM t WHERE smart_llm(r) = 'a'": [],
    "PREPARE p AS SELECT smart_llm('c'), smart_llm(r) FROM t": [],
    "DESCRIBE SELECT smart_llm(r) FROM t": [],
    "SELECT k FROM (SELECT k, smart_llm(r) FROM t)": [],
}


@pytest.mark.parametrize("query", NEEDED)
def test_sets_hold_the_rows_that_are_needed(
    query: str, con: Connection, engine: RecordingEngine
) -> None:
    con.execute(query).fetchall()
    assert sorted(engine.rows) == sorted(NEEDED[query])


def test_equal_values_in_a_stored_column_are_counted_row_by_row(
    tmp_path: Path, engine: RecordingEngine
) -> None:
    path = str(tmp_path / "shop.duckdb")
    with duckdb.connect(path) as plain:
        plain.execute("CREATE TABLE t AS SELECT 'same' AS r FROM range(150000)")
        plain.execute(f"COPY t TO '{tmp_path}/t.parquet'")
    with connect(path, engine=engine) as con:
        for source in ("t", f"'{tmp_path}/t.parquet'"):
            assert con.execute(f"SELECT DISTINCT smart_llm(r) FROM {source}").fetchall() == [
                (tone("same"),)
            ]
    assert [weights for _, weights in engine.asked] == [{"same": 150_000}] * 2


def test_odd_texts_survive(con: Connection, engine: RecordingEngine) -> None:
    texts = [
        "",
        " ",
        "\x00",
        "a\x00b",
        "é",
        "e\u0301",
        "🙂" * 300,
        "'; DROP TABLE t; --",
        "x" * 10**6,
    ]
    rows = pa.table({"p": [*texts, None], "nr": range(len(texts) + 1)})
    con.register("odd", rows)
    answers = con.execute("SELECT smart_llm(p) FROM odd ORDER BY nr").fetchall()
    assert answers == [*[(tone(text),) for text in texts], (None,)]
    assert sorted(engine.asked[0][1]) == sorted(texts)


def test_each_execution_is_a_set_of_its_own(con: Connection, engine: RecordingEngine) -> None:
    con.execute("PREPARE p AS SELECT i FROM t WHERE k = $1 AND smart_llm(r) = $2")
    con.begin()
    for _ in range(2):
        con.execute("EXECUTE p(1, 'a')").fetchall()
    con.execute("INSERT INTO t SELECT 10000, 1, 1, 'not committed', NULL")
    con.execute("EXECUTE p(1, 'a')").fetchall()
    con.rollback()
    con.execute("EXECUTE p(1, 'a')").fetchall()
    assert engine.rows == [429, 429, 430, 429]


def test_statements_of_several_threads_do_not_mix(con: Connection, engine: RecordingEngine) -> None:
    counts: list[object] = []

    def work(number: int) -> None:
        with con.cursor() as mine:
            for _ in range(3):
                query = f"SELECT count(*) FROM t WHERE k = {number} AND smart_llm(r) >= ''"
                counts.append((number, mine.execute(query).fetchall()[0][0]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sizes = {0: 429, 1: 429, 2: 429, 3: 429}
    assert sorted(counts) == sorted((n, size) for n, size in sizes.items() for _ in range(3))
    assert engine.rows == [429] * 12


def test_a_recursive_query_asks_one_set_for_each_step(
    con: Connection, engine: RecordingEngine
) -> None:
    con.execute(
        "WITH RECURSIVE a(x, n) AS (SELECT 'q', 0 UNION ALL "
        "SELECT smart_llm(x), n + 1 FROM a WHERE n < 3) FROM a"
    ).fetchall()
    assert engine.rows == [1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("delta := i / 10000", "delta .* must be the same"),
        ("gamma := 0.9 + (i % 2) / 100", "gamma .* must be the same"),
        ("task := 'a' || k", "task .* must be the same"),
        ("delta := CASE WHEN i = 7 THEN NULL ELSE 0.1 END", "delta .* must be the same"),
        ("delta := nullif(0.1, 0.1)", "delta .* is NULL"),
        ("delta := 0.5 + 0.5", "delta is 1.0"),
        ("gamma := 1.5 - 0.5", "gamma is 1.0"),
        ("gamma := 'nan'::DOUBLE", "gamma is nan"),
    ],
)
def test_parameters_must_be_constant_and_in_range(
    arguments: str, message: str, con: Connection, engine: RecordingEngine
) -> None:
    with pytest.raises(ParameterError, match=message):
        con.execute(f"SELECT smart_llm(r, {arguments}) FROM t").fetchall()
    assert engine.asked == []


@pytest.mark.parametrize("arguments", ["1.0", "-0.1", "NULL", "gamma := 0", "gamma := NULL"])
def test_written_parameters_are_checked_even_without_rows(
    arguments: str, con: Connection, engine: RecordingEngine
) -> None:
    for query in (
        f"SELECT smart_llm(r, {arguments}) FROM empty",
        f"FROM smart_llm(empty, r, {arguments})",
    ):
        with pytest.raises(ParameterError, match=r"delta|gamma"):
            con.execute(query)


def test_an_incomplete_set_is_refused_before_anything_is_asked(
    bare: duckdb.DuckDBPyConnection, engine: RecordingEngine
) -> None:
    for query in (
        "SELECT (SELECT smart_llm(r) FROM u WHERE u.i = t.i) FROM t",
        "SELECT smart_llm(a.r), smart_llm(b.r) FROM t a JOIN u b USING (i)",
    ):
        with pytest.raises(duckdb.InvalidInputException, match=r"not answered.*site := 1"):
            bare.execute(query).fetchall()
    assert engine.asked == []


def test_a_session_raises_the_error_itself(con: Connection, engine: RecordingEngine) -> None:
    def full(prompt: str) -> str:
        raise LedgerError("the disk is full")

    engine.say = full
    with pytest.raises(LedgerError, match="the disk is full"):
        con.execute("SELECT smart_llm(r) FROM t").fetchall()


@pytest.mark.parametrize("function", ["random()", "uuid()", "nextval('q')"])
def test_prompts_that_change_by_themselves_are_refused(
    function: str, con: Connection, engine: RecordingEngine
) -> None:
    con.execute("CREATE SEQUENCE q")
    with pytest.raises(UnplannableCallError, match="MATERIALIZED"):
        con.execute(f"SELECT smart_llm(r || {function}) FROM t").fetchall()
    con.execute(
        f"WITH q AS MATERIALIZED (SELECT r || {function} AS p FROM t LIMIT 9) "
        "SELECT smart_llm(p) FROM q"
    ).fetchall()
    con.execute("SELECT smart_llm(r || 'random()') FROM u").fetchall()
    assert engine.rows == [9, 200]


def test_a_failure_reaches_every_thread_and_is_forgotten(
    con: Connection, engine: RecordingEngine
) -> None:
    def broken(_: str) -> str:
        raise KeyError("no such model")

    engine.say = broken
    con.execute("SET threads = 8")
    con.execute("CREATE TABLE big AS SELECT 'p' || (i % 10) AS r FROM range(300000) x(i)")
    with pytest.raises(KeyError, match="no such model"):
        con.execute("SELECT max(a) FROM (SELECT smart_llm(r) AS a FROM big)").fetchall()
    assert len(engine.asked) == 1
    engine.say = tone
    assert con.execute("SELECT smart_llm('x')").fetchall() == [(tone("x"),)]


def test_sets_are_freed(con: Connection) -> None:
    barrier = con._barrier
    for _ in range(5):
        con.execute("SELECT smart_llm(r) FROM t QUALIFY smart_llm(r) = 'a'").fetchall()
    assert barrier.n_sets <= 1
    for _ in range(3):
        with pytest.raises(duckdb.Error):
            con.execute("SELECT smart_llm(r), error(r) FROM t").fetchall()
    con.begin()
    for number in range(5):
        con.execute(f"SELECT smart_llm(r || {number}) FROM t LIMIT 2").fetchall()
    assert barrier.n_sets <= 1
    con.rollback()


def test_sets_of_unknown_connections_are_bounded(
    bare: duckdb.DuckDBPyConnection, engine: RecordingEngine
) -> None:
    from smartsql.sql import macros
    from smartsql.sql.barrier import MAX_SETS_PER_CONNECTION

    other = bare.cursor()
    for number in range(MAX_SETS_PER_CONNECTION + 20):
        other.execute(f"SELECT smart_llm('p{number}')").fetchall()
    assert macros.install(bare, engine).n_sets <= MAX_SETS_PER_CONNECTION


def test_registering_again_shares_the_engine_and_another_is_refused(
    tmp_path: Path, engine: RecordingEngine
) -> None:
    path = str(tmp_path / "shop.duckdb")
    with duckdb.connect(path) as first, duckdb.connect(path) as second:
        for con in (first, second, first, first.cursor()):
            register(con, engine)
            assert con.execute("SELECT smart_llm('x')").fetchall() == [(tone("x"),)]
        assert open_session(first.cursor(), engine).execute("SELECT 1").fetchall() == [(1,)]
        with pytest.raises(Exception, match="another configuration"):
            register(second, RecordingEngine())
        second.begin()
        with pytest.raises(QueryError, match="inside a transaction"):
            register(second, engine)
    with duckdb.connect(path) as later:
        macros = later.execute(
            "SELECT count(*) FROM duckdb_functions() WHERE function_name LIKE '%smart%'"
        )
        assert macros.fetchall() == [(0,)]


def test_a_read_only_file_and_unknown_cursors_of_a_persisted_one_work(
    tmp_path: Path, engine: RecordingEngine
) -> None:
    path = str(tmp_path / "shop.duckdb")
    with duckdb.connect(path) as con:
        con.execute("CREATE TABLE t AS SELECT 'x' AS r")
    with connect(path, engine=engine, read_only=True) as reader:
        assert reader.execute("SELECT r FROM t WHERE smart_llm(r) > ''").fetchall() == [("x",)]
    with duckdb.connect(path) as con:
        register(con, engine, persist=True)
        assert con.cursor().execute("SELECT smart_llm(r) FROM t").fetchall() == [(tone("x"),)]
    with duckdb.connect(path) as con:
        with pytest.raises(duckdb.CatalogException, match="__smart_"):
            con.execute("SELECT smart_llm(r) FROM t")
        register(con, engine)
        assert con.execute("SELECT smart_llm(r) FROM t").fetchall() == [(tone("x"),)]


def test_native_positions_work_on_a_bare_connection(
    bare: duckdb.DuckDBPyConnection, engine: RecordingEngine
) -> None:
    for query in (
        "SELECT i, smart_llm(r) FROM t WHERE k = 3",
        "SELECT i, smart_llm(r) AS a FROM t QUALIFY a = '1' ORDER BY smart_llm(r)",
        "WITH q AS (SELECT smart_llm(r) AS a FROM t) SELECT a, count(*) FROM q GROUP BY a",
        "CREATE VIEW v AS SELECT smart_llm(r, 0.2) AS a, i FROM t",
        "SELECT max(a) FROM v",
        "CREATE TABLE c AS SELECT smart_llm(r) AS a FROM t",
        "INSERT INTO c SELECT smart_llm(r) FROM u",
        "CREATE TEMP TABLE x AS FROM smart_llm(t, r, gamma := 0.9)",
        "UPDATE s SET y = q.a FROM (SELECT id, smart_llm(x) AS a FROM s) q WHERE s.id = q.id",
        "SELECT smart_llm(r) FROM t UNION ALL (SELECT smart_llm(r || '!') FROM t)",
        "EXPLAIN ANALYZE SELECT smart_llm(r) FROM t",
    ):
        bare.execute(query).fetchall()
    bare.execute("SELECT smart_llm(r || ?, delta := ?) FROM t", ["x", 0.3]).fetchall()
    assert engine.asked[-1][0].delta == 0.3
    before = len(engine.asked)
    with pytest.raises(duckdb.BinderException, match="window"):
        bare.execute("SELECT i FROM t WHERE smart_llm(r) = 'a'")
    assert len(engine.asked) == before


def test_the_plan_of_a_call_has_a_blocking_window_above_the_filters(con: Connection) -> None:
    plan = con.execute("EXPLAIN SELECT i FROM t WHERE smart_llm(r) = 'a' AND k % 3 = 1").fetchall()
    text = plan[0][1]
    assert "Window" in text and "Streaming" not in text
    assert text.index("Window") < text.index("% 3") or text.index("Window") < text.index("Scan")


def test_transaction_numbers_tell_executions_apart(con: Connection) -> None:
    con.execute("PREPARE p AS SELECT txid_current()")
    numbers = {con.execute("EXECUTE p").fetchall()[0][0] for _ in range(3)}
    assert len(numbers) == 3


def test_a_cursor_is_a_session_but_sees_no_temporary_tables(
    con: Connection, engine: RecordingEngine
) -> None:
    con.execute("CREATE TEMP TABLE mine AS SELECT 'x' AS r")
    assert con.execute("SELECT smart_llm(r) FROM mine WHERE smart_llm(r) > ''").fetchall()
    other = con.cursor()
    assert other.execute("SELECT count(*) FROM t WHERE smart_llm(r) = 'a'").fetchall()
    with pytest.raises(duckdb.CatalogException):
        other.execute("SELECT smart_llm(r) FROM mine WHERE smart_llm(r) > ''")
    other.close()
