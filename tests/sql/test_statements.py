"""Statements around queries do what DuckDB does with the same text over a plain function."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smartsql.errors import UnplannableCallError
from smartsql.sql.session import Connection
from tests.sql.comparing import Plain
from tests.sql.corpus import SETUP
from tests.sql.doubles import RecordingEngine


@pytest.fixture
def plain() -> Iterator[Plain]:
    double = Plain(SETUP)
    with double.con:
        yield double


def outcome(con: Any, text: str, after: str, parameters: object = None) -> tuple[object, ...]:
    """Names, types and rows of a text, and of a query behind it."""
    found: list[object] = []
    for query, given in ((text, parameters), (after, None)):
        result = con.execute(query, given)
        columns = [(name, str(kind)) for name, kind, *_ in result.description or []]
        rows = Counter(map(repr, result.fetchall())) if columns else None
        found += [columns, rows]
    return tuple(found)


def check(
    text: str,
    after: str,
    con: Connection,
    engine: RecordingEngine,
    plain: Plain,
    *,
    parameters: object = None,
) -> None:
    """The same outcome, and nothing asked that DuckDB would not have asked."""
    ours, theirs = (outcome(some, text, after, parameters) for some in (con, plain.con))
    assert ours == theirs
    assert set(engine.prompts) <= plain.asked


IN_S = "FROM s"
CHANGES = [
    " UPDATE s SET y = smart_llm(x)",
    "/* c; */ UPDATE s SET y = smart_llm(x) -- all of it",
    "UPDATE s SET -- first\n y = smart_llm(x) -- then\n WHERE id < 9 -- last\n",
    "BEGIN; UPDATE s SET y = smart_llm(x); COMMIT",
    "BEGIN; UPDATE s SET y = smart_llm(x); ROLLBACK",
    "BEGIN; DELETE FROM s WHERE smart_llm(x) > '5'; UPDATE s SET y = smart_llm(x); COMMIT;",
    "UPDATE s SET y = smart_llm(x), x = DEFAULT",
    "UPDATE s SET x = DEFAULT, y = smart_llm(x) WHERE id IN (1, 2)",
    "UPDATE s SET y = smart_llm(x) WHERE x IS DISTINCT FROM 'row 3'",
    "UPDATE s SET y = smart_llm(x) WHERE id < 5 RETURNING *",
    "UPDATE s SET y = smart_llm(x) WHERE id < 5 RETURNING id + 1 AS n, y",
    "UPDATE s AS z SET y = smart_llm(z.x) WHERE z.id < 5",
    "UPDATE main.s SET y = smart_llm(s.x) WHERE id = 7",
    "UPDATE s SET (x, y) = (smart_llm(x), 'b') WHERE id < 4",
    "UPDATE s SET (x, y) = ROW('b', smart_llm(x)), id = id + 100",
    "UPDATE s SET (x, y) = (DEFAULT, smart_llm(x)) WHERE id < 4",
    "UPDATE s SET y = smart_llm(u.r) FROM u WHERE s.id = u.i AND u.b = 1",
    "UPDATE s SET y = smart_llm(s.x || u.r) FROM u WHERE s.id = u.i",
    "UPDATE s SET y = u.w FROM u WHERE s.id = u.i AND smart_llm(u.r) > '6'",
    "UPDATE s SET y = u.w FROM u WHERE s.id = u.i AND smart_llm(s.x) > '6'",
    "UPDATE s AS a SET y = smart_llm(b.r) FROM (SELECT i, r FROM u) AS b WHERE a.id = b.i",
    "UPDATE s SET y = smart_llm(a.w) FROM u a JOIN t b ON a.i = b.i WHERE s.id = b.i AND b.k < 3",
    "UPDATE s SET y = q.a FROM (SELECT i, r AS a FROM u WHERE smart_llm(r) > '6') q "
    "WHERE s.id = q.i",
    "WITH q AS (SELECT i FROM u WHERE smart_llm(r) > '5') UPDATE s SET y = 'q' "
    "WHERE id IN (SELECT i FROM q)",
    "WITH q AS (SELECT i, r FROM u) UPDATE s SET y = smart_llm(q.r) FROM q WHERE q.i = s.id",
    "UPDATE s SET y = (SELECT max(smart_llm(r)) FROM u) WHERE id < 3",
    " DELETE FROM s WHERE smart_llm(x) > '7'",
    "DELETE FROM s USING u WHERE s.id = u.i AND smart_llm(u.r) > '6'",
    "DELETE FROM s USING u WHERE s.id = u.i AND smart_llm(s.x || u.w) > '6' RETURNING id",
    "DELETE FROM s AS a USING u AS b, t AS c WHERE a.id = b.i AND b.i = c.i AND smart_llm(b.r) > "
    "'6' AND c.k = 2",
    "WITH q AS (SELECT i FROM u WHERE smart_llm(r) > '5') DELETE FROM s WHERE id IN (FROM q)",
    "WITH q AS (SELECT i FROM u WHERE smart_llm(r) > '5') DELETE FROM s USING q WHERE id = q.i",
    "WITH q AS (SELECT i, r FROM u WHERE smart_llm(r) > '5') INSERT INTO s SELECT i, r, r FROM q",
    "WITH q AS (SELECT i, r FROM u WHERE smart_llm(r) > '5') INSERT INTO s (id, x) "
    "WITH z AS (SELECT * FROM q WHERE i < 90) SELECT i, r FROM z RETURNING id",
    "INSERT INTO s (SELECT i, r, w FROM u WHERE smart_llm(r) > '5')",
    "INSERT INTO s (x, id) (SELECT r, i FROM u WHERE smart_llm(r) > '5') UNION ALL "
    "(SELECT w, i FROM u WHERE smart_llm(w) > '9')",
    "INSERT INTO s BY NAME (SELECT smart_llm(r) AS y, i AS id FROM u)",
    "INSERT INTO s VALUES (100, 'a', smart_llm('a'))",
    "INSERT INTO s VALUES (100, 'a', smart_llm('a')), (101, smart_llm('a'), NULL), (102, 'c', "
    "smart_llm('d'))",
    "INSERT INTO s (y, id) VALUES (smart_llm('a' || 'b'), '7') RETURNING *",
    "INSERT INTO s VALUES (100, DEFAULT, smart_llm('a'))",
    "INSERT INTO s VALUES (100, DEFAULT, smart_llm('a')), (101, DEFAULT, smart_llm('b'))",
    "INSERT INTO s (y, x, id) VALUES (smart_llm('b'), DEFAULT, 3)",
    "INSERT INTO s VALUES (100, (SELECT max(smart_llm(r)) FROM u), 'x')",
    "INSERT INTO s SELECT i, unnamed_subquery.r, w FROM query('SELECT * FROM u "
    "WHERE smart_llm(r) > ''5''')",
    "MERGE INTO s USING (SELECT i AS id, r FROM u) q ON s.id = q.id WHEN MATCHED THEN UPDATE "
    "SET y = smart_llm(q.r)",
    "MERGE INTO s USING u q ON s.id = q.i WHEN MATCHED AND q.b = 1 THEN UPDATE SET y = 'm'"
    " || smart_llm(q.r) WHEN NOT MATCHED THEN INSERT VALUES (q.i, q.r, smart_llm(q.r))",
    "MERGE INTO s USING u ON s.id = u.i WHEN NOT MATCHED THEN INSERT (id, y) VALUES (u.i, "
    "smart_llm(w)) RETURNING merge_action, *",
    "MERGE INTO s AS a USING u AS q ON (a.id = q.i AND smart_llm(q.r) > '5') WHEN MATCHED THEN "
    "UPDATE SET x = 'm' WHEN NOT MATCHED THEN INSERT VALUES (q.i, q.r, NULL)",
    "MERGE INTO s USING u q ON s.id = q.i WHEN MATCHED AND smart_llm(q.r) > '5' THEN DELETE "
    "WHEN MATCHED THEN UPDATE SET y = CASE WHEN q.b = 1 THEN smart_llm(q.r) END",
    "MERGE INTO s USING (SELECT i AS id, r FROM u) q USING (id) WHEN MATCHED THEN UPDATE SET "
    "y = smart_llm('x' || smart_llm(q.r))",
    "MERGE INTO s USING (SELECT i AS id, r FROM u WHERE smart_llm(r) > '5') q ON s.id = q.id "
    "WHEN MATCHED THEN UPDATE SET y = smart_llm(q.r) WHEN NOT MATCHED BY SOURCE THEN DELETE",
    "WITH q AS (SELECT i, r FROM u WHERE i < 70) MERGE INTO s USING q ON s.id = q.i WHEN MATCHED "
    "THEN UPDATE SET y = smart_llm(q.r) WHEN NOT MATCHED THEN INSERT VALUES (q.i, q.r, NULL)",
    "WITH q AS (SELECT i, r FROM u WHERE smart_llm(r) > '5') MERGE INTO s USING q ON s.id = q.i "
    "WHEN MATCHED THEN UPDATE SET y = q.r",
    "MERGE INTO s USING u q ON s.id = q.i WHEN MATCHED THEN UPDATE SET y = (SELECT "
    "max(smart_llm(r)) FROM t WHERE k = 1)",
    "MERGE INTO s USING (VALUES (1, 'p'), (77, 'q')) q(a, b) ON s.id = q.a WHEN MATCHED THEN "
    "UPDATE SET y = smart_llm(b) WHEN NOT MATCHED THEN INSERT VALUES (a, b, smart_llm(b))",
]


@pytest.mark.parametrize("text", CHANGES)
def test_a_change_leaves_the_table_as_the_text_says(
    text: str, con: Connection, engine: RecordingEngine, plain: Plain
) -> None:
    check(text, IN_S, con, engine, plain)


DEFINITIONS = {
    "CREATE TYPE e AS ENUM (SELECT DISTINCT r FROM u WHERE smart_llm(r) > '3' ORDER BY r)": (
        "SELECT unnest(enum_range(NULL::e))"
    ),
    "CREATE TABLE x AS SELECT i FROM u WHERE smart_llm(r) = 'a' WITH NO DATA": "FROM x",
    "CREATE TABLE x AS SELECT i FROM u WHERE smart_llm(r) = 'a' WITH DATA": "FROM x",
    "CREATE TABLE x(c) AS (SELECT i FROM u WHERE smart_llm(r) > 'a')": "FROM x",
    "CREATE TEMP TABLE x AS FROM u WHERE smart_llm(r) > '9'": "FROM x",
    "SET VARIABLE v = (SELECT max(smart_llm(r)) FROM u)": "SELECT getvariable('v')",
    "SET VARIABLE v = smart_llm('a')": "SELECT getvariable('v')",
    "SET VARIABLE v = upper(smart_llm('a')) || (SELECT min(smart_llm(r)) FROM u)": (
        "SELECT getvariable('v')"
    ),
    "SET VARIABLE v = (SELECT list(i ORDER BY i) FROM u WHERE smart_llm(r) > '9')": (
        "SELECT getvariable('v')"
    ),
    "CREATE VIEW v AS SELECT i FROM u WHERE smart_llm(r) > '9'": "FROM v",
    "CREATE MACRO m() AS TABLE SELECT i FROM u WHERE smart_llm(r) > '9'": "FROM m()",
    "CREATE MACRO m(lo) AS TABLE SELECT i FROM u WHERE i > lo AND smart_llm(r) > '9'": "FROM m(50)",
    "CREATE OR REPLACE TEMP MACRO m() AS (SELECT max(smart_llm(r)) FROM u)": "SELECT m()",
    "PREPARE p AS UPDATE s SET y = smart_llm(x) WHERE id < $1; EXECUTE p(5)": IN_S,
    "PREPARE p AS SELECT 1; PREPARE q AS DELETE FROM s WHERE smart_llm(x) > $1; EXECUTE q('5')": (
        IN_S
    ),
    "VALUES (smart_llm('a'))": "SELECT 1",
    "VALUES (1, smart_llm('a')), (2, smart_llm('b')) ORDER BY 1 DESC LIMIT 1": "SELECT 1",
    "FROM (VALUES (smart_llm('a')), ('z')) v(x)": "SELECT 1",
    "SELECT 'a' AS x EXCEPT VALUES (smart_llm('a')), ('a')": "SELECT 1",
    "WITH v(x, y) AS (VALUES (1, smart_llm('a')), (2, NULL)) SELECT y, x FROM v": "SELECT 1",
    "FROM query('SELECT i, smart_llm(r) AS a FROM u WHERE i < 9;')": "SELECT 1",
    "SELECT q.n FROM query('SELECT count(*) FROM u WHERE smart_llm(r) > ''5''') AS q(n)": (
        "SELECT 1"
    ),
    "SELECT x.i FROM u x, query('SELECT i FROM u WHERE smart_llm(r) > ''9''') y WHERE x.i = y.i": (
        "SELECT 1"
    ),
    "DESCRIBE SELECT count(*) FROM u WHERE smart_llm(r) = 'a'": "SELECT 1",
    "COPY (SELECT i FROM u WHERE smart_llm(r) > '9' ORDER BY i) TO '{file}' (HEADER)": (
        "FROM '{file}'"
    ),
}


@pytest.mark.parametrize("text", DEFINITIONS)
def test_a_statement_around_a_query_does_what_the_text_says(
    text: str, con: Connection, engine: RecordingEngine, plain: Plain, tmp_path: Path
) -> None:
    file = str(tmp_path / "out.csv")
    check(
        text.replace("{file}", file),
        DEFINITIONS[text].replace("{file}", file),
        con,
        engine,
        plain,
    )


MACROS = """
CREATE MACRO toned(x) AS smart_llm('T ' || x);
CREATE VIEW v AS SELECT i, smart_llm(r) AS a FROM u;
"""
THROUGH_MACROS = [
    "UPDATE s SET y = toned(x) WHERE id < 20",
    "UPDATE s SET y = 'm' WHERE toned(x) > '6'",
    "UPDATE s SET y = toned(u.r) FROM u WHERE u.i = s.id",
    "DELETE FROM s WHERE toned(x) > '6'",
    "DELETE FROM s USING u WHERE u.i = s.id AND toned(r) > '6'",
    "INSERT INTO s SELECT i, r, w FROM u WHERE toned(r) > '6'",
    "UPDATE s SET y = 'v' FROM v WHERE v.i = s.id AND v.a > '6'",
    "DELETE FROM s WHERE id IN (SELECT i FROM v WHERE a > '6')",
    "BEGIN; DELETE FROM s WHERE toned(x) > '6'; COMMIT; FROM s WHERE toned(x) > '1'",
]


@pytest.mark.parametrize("text", THROUGH_MACROS)
def test_a_change_may_call_through_macros_and_views(
    text: str, con: Connection, engine: RecordingEngine, plain: Plain
) -> None:
    for some in (con, plain.con):
        some.execute(MACROS)
    check(text, IN_S, con, engine, plain)


WITH_PARAMETERS: list[tuple[str, object]] = [
    ("UPDATE s SET y = smart_llm(u.r || ?) FROM u WHERE s.id = u.i AND u.b = ?", ["x", 1]),
    ("UPDATE s SET (x, y) = (?, smart_llm(x)) WHERE id < ?", ["new", 5]),
    ("DELETE FROM s USING u WHERE s.id = u.i AND smart_llm(u.r) > ? AND u.b = ?", ["5", 1]),
    ("INSERT INTO s VALUES (?, ?, smart_llm(?))", [100, "a", "b"]),
    ("INSERT INTO s VALUES ($1, $2, smart_llm($2)), ($3, $2, NULL)", [100, "a", 101]),
    ("INSERT INTO s VALUES ($id, $x, smart_llm($x))", {"id": 100, "x": "a"}),
    (
        "MERGE INTO s USING u q ON s.id = q.i AND q.b = ? WHEN MATCHED THEN UPDATE SET "
        "y = smart_llm(q.r || ?) WHEN NOT MATCHED AND q.i < ? THEN INSERT VALUES (q.i, ?, NULL)",
        [1, "x", 60, "new"],
    ),
    (
        "CREATE TABLE a1 AS SELECT 1 AS q; SELECT smart_llm(?) AS zz FROM a1 WHERE zz > ?",
        ["a", "0"],
    ),
]


@pytest.mark.parametrize(("text", "parameters"), WITH_PARAMETERS)
def test_parameters_stay_bound_when_a_change_is_rearranged(
    text: str, parameters: object, con: Connection, engine: RecordingEngine, plain: Plain
) -> None:
    check(text, IN_S, con, engine, plain, parameters=parameters)


REFUSED = {
    "MERGE INTO s USING u q ON s.id = q.i WHEN MATCHED AND smart_llm(s.x) = 'a' THEN DELETE": (
        "WHEN of MERGE over columns of the target"
    ),
    "MERGE INTO s USING u q ON s.id = q.i WHEN MATCHED THEN UPDATE SET y = smart_llm(x)": (
        "WHEN of MERGE over columns of the target"
    ),
    "MERGE INTO s USING u q ON smart_llm(s.x) = q.r WHEN MATCHED THEN DELETE": (
        "ON of MERGE over columns of the target"
    ),
    "MERGE INTO s USING u q ON s.id = q.i WHEN NOT MATCHED BY SOURCE THEN UPDATE SET "
    "y = smart_llm('a')": "WHEN NOT MATCHED BY SOURCE",
    "MERGE INTO s USING (SELECT i AS id, r AS x, w AS y FROM u) q ON s.id = q.id WHEN MATCHED "
    "THEN UPDATE SET y = smart_llm(q.x) WHEN NOT MATCHED THEN INSERT": "all columns",
    "MERGE INTO s USING u q ON s.id = q.i WHEN MATCHED THEN DELETE RETURNING smart_llm(x)": (
        "RETURNING"
    ),
    "INSERT INTO s SELECT i, r, w FROM u ON CONFLICT (id) DO UPDATE SET y = "
    "smart_llm(excluded.x)": "INSERT outside its query",
    "INSERT INTO s SELECT 1, 'a', 'b' RETURNING smart_llm(x)": "INSERT outside its query",
    "DELETE FROM s WHERE id = 3 RETURNING smart_llm(x)": "RETURNING",
    "UPDATE s SET y = 'a' RETURNING smart_llm(y)": "RETURNING",
    "UPDATE s SET (x, y) = (SELECT smart_llm('a'), 'b')": "several columns at once",
    "INSERT INTO s VALUES (1, DEFAULT, smart_llm('a')), (2, 'x', 'y')": "VALUES with DEFAULT",
    "PREPARE p AS SELECT $1; EXECUTE p(smart_llm('a'))": "the arguments of EXECUTE",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_call_that_no_source_can_hold_is_refused_before_any_spend(
    text: str, con: Connection, engine: RecordingEngine
) -> None:
    with pytest.raises(UnplannableCallError, match=re.escape(REFUSED[text])):
        con.execute(text)
    assert engine.asked == []
    assert con.execute("SELECT count(*), count(y) FROM s").fetchall() == [(50, 0)]


WAYS_OUT = [
    "MERGE INTO s USING (SELECT u.*, smart_llm(t.x) AS answer FROM u LEFT JOIN s t ON t.id = "
    "u.i) q ON s.id = q.i WHEN MATCHED AND q.answer > '5' THEN DELETE",
    "UPDATE s SET y = smart_llm('a') WHERE id NOT IN (SELECT i FROM u)",
    "MERGE INTO s USING (SELECT *, smart_llm(x) AS answer FROM (SELECT i AS id, r AS x, w AS y "
    "FROM u)) q ON s.id = q.id WHEN MATCHED THEN UPDATE SET y = q.answer WHEN NOT MATCHED THEN "
    "INSERT (id, x) VALUES (q.id, q.x)",
    "CREATE TABLE k(id INTEGER PRIMARY KEY, x VARCHAR, y VARCHAR); INSERT INTO k SELECT i, r, "
    "smart_llm(r) FROM u ON CONFLICT (id) DO UPDATE SET y = excluded.y",
    "UPDATE s SET x = smart_llm('a'), y = 'b'",
    "INSERT INTO s VALUES (1, DEFAULT, smart_llm('a')); INSERT INTO s VALUES (2, 'x', 'y')",
    "DELETE FROM s WHERE id = 3 RETURNING x",
    "PREPARE p AS UPDATE s SET y = $1; SET VARIABLE v = smart_llm('a'); "
    "EXECUTE p(getvariable('v'))",
]


@pytest.mark.parametrize("text", WAYS_OUT)
def test_the_ways_out_of_refused_changes_work(
    text: str, con: Connection, engine: RecordingEngine, plain: Plain
) -> None:
    check(text, IN_S, con, engine, plain)
