"""Macros and views that lead to a call: they work wherever the call itself would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from smartsql.sql.normalise.stored.inlining import Stored
from smartsql.sql.session import Connection, connect
from tests.sql.comparing import Pair
from tests.sql.corpus import statements
from tests.sql.doubles import RecordingEngine, tone

SETUP = """
CREATE VIEW v AS SELECT i, k, smart_llm(z) AS a FROM t;
CREATE VIEW vq(p, "Q q") AS SELECT i, smart_llm(r) FROM t;
CREATE MACRO tone(x) AS smart_llm('Tone: ' || x);
CREATE MACRO up(x) AS upper(tone(x)) || x;
CREATE MACRO deft(x, pre := 'P: ', post := '!') AS smart_llm(pre || x || post);
CREATE MACRO over1(x) AS smart_llm(x), (x, y) AS smart_llm(x || y);
CREATE MACRO tb(kk, p := 'q') AS TABLE
    SELECT i, smart_llm(p || r) AS a FROM t WHERE k = kk AND smart_llm(r) > '3';
CREATE MACRO sub(x) AS (SELECT max(smart_llm(w || x)) FROM u);
CREATE MACRO cor(x) AS (SELECT max(smart_llm(u.r)) FROM u WHERE u.i = x);
CREATE TEMP MACRO tmpm(x) AS smart_llm(x);
CREATE MACRO "My M"(x) AS smart_llm(x);
CREATE MACRO rowm(x) AS smart_llm(x.r);
"""


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    both = Pair(SETUP)
    yield both
    both.close()


@pytest.mark.parametrize(
    "statement",
    [
        *statements("stored.sql"),
        "FROM tb(2)",
        "SELECT t.i, z.* FROM t, tb(t.k) z WHERE t.i < 3",
        "UPDATE s SET y = tone(x) WHERE tone(x) > '3' RETURNING id, y",
        "DELETE FROM s WHERE tone(x) > '8' RETURNING id",
        "INSERT INTO s SELECT i + 500, tone(r), NULL FROM t WHERE tone(r) > 'd' RETURNING *",
        "INSERT INTO s VALUES (999, tone('a'), NULL) RETURNING *",
    ],
)
def test_a_stored_call_gives_what_a_plain_function_gives(statement: str, pair: Pair) -> None:
    pair.compare(statement)


@pytest.mark.parametrize(
    ("statement", "needed"),
    [
        (
            "SELECT i FROM t WHERE k = 1 AND tone(z) = 'a'",
            "SELECT 'Tone: ' || z FROM t WHERE k = 1",
        ),
        ("SELECT max(up(z)) FROM t WHERE k = 1", "SELECT 'Tone: ' || z FROM t WHERE k = 1"),
        ("SELECT max(deft(z, post := '?')) FROM t", "SELECT 'P: ' || z || '?' FROM t"),
        ("SELECT cor(i) FROM t WHERE i < 5", "SELECT r FROM u WHERE i < 5"),
    ],
)
def test_a_macro_asks_what_the_call_it_stands_for_would_ask(
    statement: str, needed: str, pair: Pair
) -> None:
    pair.compare(statement)
    assert pair.asked == pair.inputs(needed)


def test_a_statement_that_runs_as_it_stands_reaches_duckdb_as_it_is_written(pair: Pair) -> None:
    for text in ("SELECT  tone( r ) FROM t", "SELECT a  FROM v", "SELECT upper( r ) FROM t"):
        assert pair.session._planned(text) == text


@pytest.mark.parametrize(
    ("statement", "written"),
    [
        ("SELECT tone(r) FROM t", """SELECT smart_llm('Tone: ' || r) AS "tone(r)" FROM t"""),
        ("SELECT i FROM t WHERE deft(r, post := k) = 'a'", "'P: ' || r) || k"),
        ("FROM v AS w WHERE a = 'a'", "(SELECT i, k, smart_llm(z) AS a FROM t) AS w"),
        ("FROM vq", '(SELECT i, smart_llm(r) FROM t) AS "vq"("p", "Q q")'),
    ],
)
def test_names_are_written_out_as_what_they_stand_for(
    statement: str, written: str, pair: Pair
) -> None:
    text = Stored().written_out(statement, pair.session._con)
    assert written in text.replace("('Tone: ' || r)", "'Tone: ' || r").replace(
        "smart_llm('Tone: ' || r AS", "smart_llm('Tone: ' || r) AS"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "WITH t AS (SELECT 1 AS i) FROM v",
        "CREATE MACRO other(x) AS upper(tone(x))",
        "SELECT tone(r, 'one too many') FROM t",
        "SELECT i FROM t",
    ],
)
def test_what_would_mean_something_else_stays_as_it_is(statement: str, pair: Pair) -> None:
    assert Stored().written_out(statement, pair.session._con) == statement


def test_a_macro_of_another_connection_is_seen_in_its_newest_form(con: Connection) -> None:
    con.execute("CREATE MACRO m(x) AS smart_llm('old ' || x)")
    first = con.execute("SELECT max(m(r)) FROM t").fetchone()
    with con.cursor() as other:
        other.execute("CREATE OR REPLACE MACRO m(x) AS smart_llm('new ' || x)")
    second = con.execute("SELECT max(m(r)) FROM t").fetchone()
    prompts = [f"{which} review {i}" for which in ("old", "new") for i in range(40)]
    assert first == (max(map(tone, prompts[:40])),)
    assert second == (max(map(tone, prompts[40:])),)


def test_an_unread_result_is_not_disturbed(con: Connection) -> None:
    con.execute("CREATE MACRO m(x) AS smart_llm(x)")
    con.execute("SELECT i FROM t ORDER BY i")
    assert con.fetchone() == (0,)
    relation = con.sql("SELECT max(m(r)) FROM t")
    assert relation.columns == ["max(m(r))"]
    assert con.fetchone() == (1,)


def test_macros_of_a_file_work_when_it_is_opened_again(
    tmp_path: Path, engine: RecordingEngine
) -> None:
    path = str(tmp_path / "shop.duckdb")
    with connect(path, engine=engine) as con:
        con.execute("CREATE TABLE t AS SELECT 'a' AS r UNION ALL SELECT 'b'")
        con.execute("CREATE MACRO m(x) AS smart_llm(x)")
    with connect(path, engine=engine) as con:
        found = con.execute("SELECT count(*) FROM t WHERE m(r) IS NOT NULL").fetchall()
    assert found == [(2,)]
