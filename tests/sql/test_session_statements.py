"""Several statements in one text run one after the other, as DuckDB runs them."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

from smartsql.errors import UnplannableCallError
from smartsql.sql.normalise.text.parameters import is_blank, separated
from smartsql.sql.session import Connection
from tests.sql.doubles import RecordingEngine, tone

SEVERAL = [
    "CREATE TABLE a1 AS SELECT 1 AS q; SELECT smart_llm('a') AS zz FROM a1 WHERE zz > '0'",
    "CREATE TABLE a1 AS SELECT i, r FROM u WHERE smart_llm(r) > '5'; SELECT a1.i FROM a1 JOIN u "
    "USING (i) WHERE smart_llm(a1.r) > '7' ORDER BY 1;",
    "ALTER TABLE s ADD COLUMN tone VARCHAR; UPDATE s SET tone = smart_llm(x) WHERE tone IS NULL; "
    "SELECT tone, count(*) FROM s GROUP BY ALL ORDER BY 1",
    "BEGIN; DELETE FROM s WHERE smart_llm(x) > '5'; ROLLBACK; SELECT count(*) FROM s",
    "SET VARIABLE lo = '5'; SELECT i FROM u WHERE smart_llm(r) > getvariable('lo') ORDER BY i; --",
    ";; SELECT ';' /* ; */; SELECT $$;$$ || smart_llm('a') WHERE smart_llm('b') > '' ; \n-- end ;",
    "CREATE TEMP TABLE z AS SELECT smart_llm(r) AS a FROM u; INSERT INTO z VALUES (smart_llm('n'));"
    "SELECT a, count(*) FROM z GROUP BY a ORDER BY a",
    "SELECT smart_llm(r) FROM u ORDER BY i; SELECT smart_llm(r) FROM u ORDER BY i DESC LIMIT 3",
]


@pytest.mark.parametrize("run", ["execute", "sql", "query"])
@pytest.mark.parametrize("text", SEVERAL)
def test_several_statements_give_what_duckdb_gives(
    text: str, run: str, con: Connection, oracle: duckdb.DuckDBPyConnection
) -> None:
    ours, theirs = (getattr(some, run)(text).fetchall() for some in (con, oracle))
    assert ours == theirs
    assert con.execute("FROM s").fetchall() == oracle.execute("FROM s").fetchall()


def test_parameters_belong_to_the_last_statement(
    con: Connection, oracle: duckdb.DuckDBPyConnection
) -> None:
    text = (
        "DELETE FROM s WHERE smart_llm(x) > '7'; SELECT id FROM s WHERE smart_llm(x) > ? AND id<?"
    )
    for some in (con, oracle):
        with pytest.raises(duckdb.Error):
            some.execute("SELECT smart_llm(?); SELECT 1", ["a"])
    ours, theirs = (sorted(some.execute(text, ["5", 30]).fetchall()) for some in (con, oracle))
    assert ours == theirs
    ours, theirs = (some.sql(text, params=["5", 30]).fetchall() for some in (con, oracle))
    assert sorted(ours) == sorted(theirs)


def test_many_parameter_sets_are_for_the_last_statement(
    con: Connection, engine: RecordingEngine, oracle: duckdb.DuckDBPyConnection
) -> None:
    text = "DELETE FROM s WHERE smart_llm(x) > '2'; INSERT INTO s VALUES (?, ?, smart_llm(?))"
    for some in (con, oracle):
        some.executemany(text, [[100, "a", "b"], [101, "c", "d"]])
    assert con.execute("FROM s ORDER BY ALL").fetchall() == (
        oracle.execute("FROM s ORDER BY ALL").fetchall()
    )
    assert engine.rows == [50, 1, 1]


@pytest.mark.parametrize(
    ("failing", "error"),
    [
        ("SELECT * FROM nowhere WHERE smart_llm(a) = 'a'", duckdb.CatalogException),
        ("SELECT 1 / 'x' WHERE smart_llm('a') > ''", duckdb.ConversionException),
        ("SELECT list_transform([1], lambda x: smart_llm(x))", UnplannableCallError),
    ],
)
def test_a_failure_leaves_the_statements_before_it_done(
    failing: str, error: type[Exception], con: Connection, oracle: duckdb.DuckDBPyConnection
) -> None:
    text = f"DELETE FROM s WHERE smart_llm(x) > '5'; {failing}; DELETE FROM s"
    for some, expected in ((con, error), (oracle, duckdb.Error)):
        if error is UnplannableCallError and some is oracle:
            some.execute("DELETE FROM s WHERE smart_llm(x) > '5'")
            continue
        with pytest.raises(expected):
            some.execute(text).fetchall()
    assert 0 < len(con.execute("FROM s").fetchall()) < 50
    assert con.execute("FROM s").fetchall() == oracle.execute("FROM s").fetchall()


def test_a_text_that_cannot_be_read_runs_not_at_all(
    con: Connection, engine: RecordingEngine
) -> None:
    with pytest.raises(duckdb.ParserException):
        con.execute("DELETE FROM s WHERE smart_llm(x) > '5'; SELEC 1")
    assert engine.asked == []
    assert con.execute("SELECT count(*) FROM s").fetchall() == [(50,)]


def test_each_statement_is_one_of_its_own_for_the_engine(
    con: Connection, engine: RecordingEngine
) -> None:
    con.execute("BEGIN; SELECT smart_llm('a'); SELECT smart_llm('a'), smart_llm('b'); COMMIT")
    numbers = [call.statement for call, _ in engine.asked]
    assert numbers[0] != numbers[1] == numbers[2]


class Spy:
    """A connection that keeps the texts it is given."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con = con
        self.texts: list[str] = []

    def execute(self, text: str, *arguments: object) -> Any:
        self.texts.append(text)
        return self.con.execute(text, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.con, name)


@pytest.mark.parametrize(
    "text",
    [
        "select  1 ; \n /* none */ select '2;' ;;",
        "INSERT  INTO s VALUES (1, 'a;', $$b;$$) ;DELETE FROM s WHERE id=1",
        "EXPLAIN  SELECT 1",
    ],
)
def test_a_text_without_a_call_reaches_duckdb_byte_for_byte(text: str, con: Connection) -> None:
    spy = Spy(con._con)
    con._con = spy  # type: ignore[assignment]
    con.execute(text)
    assert spy.texts[-1] == text
    if "EXPLAIN" not in text:
        assert spy.texts == [text]


def test_statements_without_calls_beside_others_reach_duckdb_as_written(con: Connection) -> None:
    spy = Spy(con._con)
    con._con = spy  # type: ignore[assignment]
    con.execute(
        "select  1 -- one\n;  select smart_llm( 'a' ) ; insert  into s values (1,'$1',$$?$$);"
    )
    assert spy.texts == [
        "select  1 -- one\n;",
        "  select smart_llm( 'a' ) ;",
        " insert  into s values (1,'$1',$$?$$);",
    ]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT ';' ; -- a;b\n;SELECT 2", ["SELECT ';' ; -- a;b\n;", "SELECT 2"]),
        ("/* ; /* ; */ ; */ SELECT 1;", ["/* ; /* ; */ ; */ SELECT 1;"]),
        (';;SELECT 1;SELECT $a$;$a$,";"', [";;SELECT 1;", 'SELECT $a$;$a$,";"']),
        ("SELECT e'\\';' ; SELECT 'a;", ["SELECT e'\\';' ;", " SELECT 'a;"]),
    ],
)
def test_statements_end_where_duckdb_ends_them(text: str, pieces: list[str]) -> None:
    assert separated(text) == pieces
    assert "".join(separated(text)) == text


@pytest.mark.parametrize(("text", "blank"), [(" -- x\n;/* y */", True), ("", True), ("1", False)])
def test_blanks_are_told_from_statements(text: str, blank: bool) -> None:
    assert is_blank(text) is blank


def test_the_last_result_is_there_to_fetch(con: Connection) -> None:
    con.execute("SELECT smart_llm('a'); SELECT smart_llm('b') AS b, 2 AS two; -- done")
    assert [column[0] for column in con.description] == ["b", "two"]
    assert con.fetchall() == [(tone("b"), 2)]
