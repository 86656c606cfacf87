"""What cannot be planned is refused before anything is asked, with words that help."""

from __future__ import annotations

import re

import duckdb
import pytest

from smartsql.errors import QueryError, UnplannableCallError
from smartsql.sql.session import Connection
from tests.sql.doubles import RecordingEngine

REFUSED = {
    "SELECT i FROM t LEFT JOIN u ON smart_llm(t.r) = u.r": "LEFT JOIN",
    "SELECT i FROM t FULL JOIN u ON t.i = u.i AND smart_llm(t.r) = 'a'": "FULL JOIN",
    "SELECT t.i FROM t JOIN u ON smart_llm(t.r) = u.r RIGHT JOIN s ON s.id = t.i": "outer join",
    "SELECT list_transform([r], lambda x: smart_llm(x)) FROM t": "lambda",
    "SELECT [smart_llm(x) for x in [r]] FROM t": "lambda",
    "SELECT (SELECT max(smart_llm(u.r)) FROM u WHERE u.i = t.i) FROM t": "correlated by t.i",
    "SELECT (SELECT max(smart_llm(r)) FROM u WHERE b = k) FROM t": "correlated by k",
    "SELECT z.a FROM t, LATERAL (SELECT smart_llm(t.r) AS a) z": "correlated by t.r",
    "SELECT i FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.i = t.i AND "
    "smart_llm(u.r) = 'a')": "correlated",
    "VALUES (smart_llm('a'))": "VALUES",
    "INSERT INTO s VALUES (1, smart_llm('a'), 'x')": "VALUES",
    "FROM (VALUES (smart_llm('a'))) v(x)": "VALUES",
    "CREATE TABLE q(a VARCHAR, b VARCHAR GENERATED ALWAYS AS (smart_llm(a)))": "generated",
    "CREATE TABLE q(a VARCHAR DEFAULT smart_llm('a'))": "DEFAULT",
    "CREATE TABLE q(a VARCHAR CHECK (smart_llm(a) = 'a'))": "CHECK",
    "ALTER TABLE s ALTER x SET DEFAULT smart_llm('a')": "DEFAULT",
    "CREATE INDEX ix ON s(smart_llm(x))": "index",
    "SELECT DISTINCT ON (smart_llm(r)) i FROM t": "DISTINCT ON",
    "SELECT i FROM t LIMIT smart_llm('a')::INT": "LIMIT",
    "SELECT i FROM t OFFSET length(smart_llm('a'))": "OFFSET",
    "SELECT * FROM range(length(smart_llm('a')))": "FROM",
    "SELECT r FROM t UNION SELECT r FROM u ORDER BY smart_llm(r)": "set operation",
    "PIVOT t ON smart_llm(r) USING count(*)": "PIVOT",
    "MERGE INTO s USING (SELECT 1 AS id) q ON s.id = q.id WHEN MATCHED THEN UPDATE "
    "SET y = smart_llm(x)": "MERGE",
    "INSERT INTO s SELECT 1, 'a', 'b' RETURNING smart_llm(x)": "INSERT",
    "UPDATE s SET y = 'a' WHERE smart_llm(x) = 'a' RETURNING smart_llm(y)": "RETURNING",
    "UPDATE s SET y = u.r FROM u WHERE smart_llm(s.x) = 'a'": "UPDATE .. FROM",
    "UPDATE s SET (x, y) = (smart_llm('a'), 'b')": "several columns",
    "DELETE FROM s USING u WHERE smart_llm(s.x) = u.r": "DELETE .. USING",
    "SELECT k, rank() OVER (ORDER BY smart_llm(min(r))) FROM t GROUP BY k": "over an aggregate",
    "SELECT k, row_number() OVER () FROM t GROUP BY k HAVING smart_llm(min(r)) > '3'": "HAVING",
    "SELECT *, smart_llm(a.r) FROM t a JOIN u b USING (i) WHERE smart_llm(b.r) = "
    "'a'": "selects * from a join",
}


@pytest.mark.parametrize("statement", [q for q, clause in REFUSED.items() if clause])
def test_the_refusal_names_the_call_the_clause_and_a_way_out(
    statement: str, con: Connection, engine: RecordingEngine
) -> None:
    with pytest.raises(UnplannableCallError, match=re.escape(REFUSED[statement])) as caught:
        con.execute(statement).fetchall()
    assert caught.value.call.lower().startswith("smart_llm(")
    assert REFUSED[statement] in caught.value.clause
    assert engine.asked == []


@pytest.mark.parametrize(
    "rewrite",
    [
        "SELECT t.i FROM t LEFT JOIN (SELECT *, smart_llm(r) AS answer FROM u) s ON s.answer = t.r",
        "SELECT list(a) FROM (SELECT i, smart_llm(x) AS a FROM (SELECT i, unnest([r]) AS "
        "x FROM t)) GROUP BY i",
        "WITH q AS (SELECT i, smart_llm(r) AS answer FROM u) SELECT (SELECT max(answer) "
        "FROM q WHERE q.i = t.i) FROM t",
        "FROM (VALUES ('a')) v(x) SELECT smart_llm(x)",
        "UPDATE s SET y = q.answer FROM (SELECT id, smart_llm(x) AS answer FROM s) q "
        "WHERE s.id = q.id",
        "DELETE FROM s WHERE id IN (SELECT id FROM s QUALIFY smart_llm(x) = 'a')",
        "PIVOT (SELECT *, smart_llm(r) AS a FROM t) ON a USING count(*)",
        "SELECT k FROM (SELECT k, smart_llm(min(r)) AS a FROM t GROUP BY k) WHERE a > '3'",
        "SELECT k, row_number() OVER () FROM (SELECT k FROM t GROUP BY k QUALIFY "
        "smart_llm(min(r)) > '3')",
        "SELECT k, rank() OVER (ORDER BY smart_llm(m)) FROM (SELECT k, min(r) AS m FROM "
        "t GROUP BY k)",
        "SELECT DISTINCT ON (answer) i FROM (SELECT *, smart_llm(r) AS answer FROM t)",
        "SELECT * FROM (SELECT r FROM t UNION SELECT r FROM u) ORDER BY smart_llm(r)",
    ],
)
def test_the_ways_out_that_refusals_name_work(rewrite: str, con: Connection) -> None:
    con.execute(rewrite).fetchall()


MISPLACED = [
    "SELECT i FROM t WHERE {}(r) = 'a'",
    "SELECT count(*) FROM t GROUP BY {}(r)",
    "SELECT k FROM t GROUP BY k HAVING {}(min(r)) = 'a'",
    "SELECT t.i FROM t JOIN u ON {}(t.r) = u.r",
    "SELECT max({}(r)) FROM t",
    "SELECT rank() OVER (ORDER BY {}(r)) FROM t",
    "UPDATE s SET y = {}(x)",
    "DELETE FROM s WHERE {} (x) = 'a'",
    "CREATE TABLE q(a VARCHAR CHECK ({}(a) = 'a'))",
    "SELECT i FROM t LIMIT length({}('a'))",
]


@pytest.mark.parametrize("statement", MISPLACED)
@pytest.mark.parametrize("macro", ["tone", "Outer_Tone", '"odd tone"'])
def test_calls_in_macros_are_refused_where_windows_are_with_duckdbs_words_and_ours(
    statement: str, macro: str, con: Connection, engine: RecordingEngine
) -> None:
    con.execute("CREATE MACRO tone(x) AS smart_llm('Tone: ' || x)")
    con.execute("CREATE TEMP MACRO outer_tone(x) AS upper(tone(x))")
    con.execute('CREATE MACRO "odd tone"(x) AS upper(outer_tone(x))')
    with pytest.raises(QueryError, match=r"(?i)window function.*\n.*QUALIFY.*macro") as caught:
        con.execute(statement.format(macro))
    assert f"{macro.strip(chr(34)).lower()}(..)" in str(caught.value)
    assert isinstance(caught.value.__cause__, duckdb.BinderException)
    assert engine.asked == []


def test_the_ways_out_for_macros_work(con: Connection) -> None:
    con.execute("CREATE MACRO tone(x) AS smart_llm('Tone: ' || x)")
    expected = con.execute("SELECT i FROM t WHERE smart_llm('Tone: ' || r) = 'a'").fetchall()
    assert len(expected) > 0
    for way_out in (
        "SELECT i FROM t QUALIFY tone(r) = 'a'",
        "SELECT i FROM (SELECT *, tone(r) AS answer FROM t) WHERE answer = 'a'",
    ):
        assert sorted(con.execute(way_out).fetchall()) == sorted(expected)


def test_windows_of_the_users_own_keep_duckdbs_error(con: Connection) -> None:
    con.execute("CREATE MACRO tone(x) AS smart_llm('Tone: ' || x)")
    with pytest.raises(duckdb.BinderException, match="window"):
        con.execute("SELECT i FROM t WHERE rank() OVER () = 1")


def test_misplaced_macros_are_explained_inside_transactions(con: Connection) -> None:
    con.execute("CREATE MACRO tone(x) AS smart_llm('Tone: ' || x)")
    for run in (con.execute, con.sql):
        con.begin()
        with pytest.raises(QueryError, match="through the macro tone"):
            run("SELECT i FROM t WHERE tone(r) = 'a'")
        con.rollback()
    assert len(con.execute("SELECT i FROM t QUALIFY tone(r) = 'a'").fetchall()) > 0
