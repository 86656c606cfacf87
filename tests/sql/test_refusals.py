"""What cannot be planned is refused before anything is asked, with words that help."""

from __future__ import annotations

import re

import duckdb
import pytest

from smartsql.errors import UnplannableCallError
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
        "SELECT * FROM (SELECT r FROM t UNION SELECT r FROM u) ORDER BY smart_llm(r)",
    ],
)
def test_the_ways_out_that_refusals_name_work(rewrite: str, con: Connection) -> None:
    con.execute(rewrite).fetchall()


def test_macros_around_calls_are_refused_by_duckdb_where_windows_are(
    con: Connection, engine: RecordingEngine
) -> None:
    con.execute("CREATE MACRO tone(x) AS smart_llm('Tone: ' || x)")
    with pytest.raises(duckdb.BinderException, match="window"):
        con.execute("SELECT i FROM t WHERE tone(r) = 'a'")
    assert engine.asked == []
