"""What cannot be planned is refused before anything is asked, with words that help."""

from __future__ import annotations

import re
from collections import Counter

import duckdb
import pytest

from smartsql.errors import QueryError, UnplannableCallError
from smartsql.sql.session import Connection
from tests.sql.comparing import Pair
from tests.sql.corpus import pairs
from tests.sql.doubles import RecordingEngine, tone

AROUND = {
    "CREATE TABLE q(a VARCHAR, b VARCHAR GENERATED ALWAYS AS (smart_llm(a)))": "generated",
    "CREATE TABLE q(a VARCHAR DEFAULT smart_llm('a'))": "DEFAULT",
    "CREATE TABLE q(a VARCHAR CHECK (smart_llm(a) = 'a'))": "CHECK",
    "ALTER TABLE s ALTER x SET DEFAULT smart_llm('a')": "DEFAULT",
    "CREATE INDEX ix ON s(smart_llm(x))": "index",
    "INSERT INTO s SELECT 1, 'a', 'b' RETURNING smart_llm(x)": "INSERT",
    "UPDATE s SET y = 'a' WHERE smart_llm(x) = 'a' RETURNING smart_llm(y)": "RETURNING",
}
"""Refused statements that are no queries."""


@pytest.mark.parametrize(("clause", "statement", "rewrite"), pairs("refusals.sql"))
def test_the_way_out_that_a_refusal_names_gives_what_a_plain_function_would_have_given(
    clause: str, statement: str, rewrite: str, pair: Pair
) -> None:
    pair.engine.asked.clear()
    with pytest.raises(UnplannableCallError) as caught:
        pair.session.execute(statement)
    assert clause in caught.value.clause
    assert caught.value.call.lower().startswith("smart_llm(")
    assert len(caught.value.rewrite) > 20
    assert pair.engine.asked == []
    ours = Counter(map(repr, pair.session.execute(rewrite).fetchall()))
    assert ours == Counter(map(repr, pair.plain.execute(statement).fetchall()))
    assert len(pair.engine.asked) == 1


@pytest.mark.parametrize(("statement", "clause"), AROUND.items())
def test_what_stores_calls_is_refused_with_the_clause_before_anything_is_asked(
    statement: str, clause: str, con: Connection, engine: RecordingEngine
) -> None:
    with pytest.raises(UnplannableCallError, match=re.escape(clause)) as caught:
        con.execute(statement)
    assert clause in caught.value.clause
    assert engine.asked == []


def test_stored_answers_take_the_place_of_stored_calls(con: Connection) -> None:
    con.execute("ALTER TABLE s ADD COLUMN answer VARCHAR")
    con.execute("UPDATE s SET answer = smart_llm(x)")
    found = con.execute("SELECT x, answer FROM s").fetchall()
    assert len(found) == 50
    assert all(answer == tone(x) for x, answer in found)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE q(a VARCHAR CHECK ({}(a) = 'a'))",
        "SELECT i FROM t LIMIT length({}('a'))",
        "SELECT list_transform([r], lambda x: {}(x)) FROM t",
    ],
)
@pytest.mark.parametrize("macro", ["tone", "Outer_Tone", '"odd tone"'])
def test_calls_in_macros_are_refused_where_the_call_would_be(
    statement: str, macro: str, con: Connection, engine: RecordingEngine
) -> None:
    con.execute("CREATE MACRO tone(x) AS smart_llm('Tone: ' || x)")
    con.execute("CREATE TEMP MACRO outer_tone(x) AS upper(tone(x))")
    con.execute('CREATE MACRO "odd tone"(x) AS upper(outer_tone(x))')
    with pytest.raises(UnplannableCallError, match="Tone: "):
        con.execute(statement.format(macro))
    assert engine.asked == []


def test_calls_in_macros_that_cannot_be_written_out_are_explained(
    con: Connection, engine: RecordingEngine
) -> None:
    """DuckDB allows no OVER behind a macro that is a window itself."""
    con.execute("CREATE MACRO tone(x) AS smart_llm('Tone: ' || x)")
    with pytest.raises(QueryError, match=r"(?is)window function.*QUALIFY.*macro") as caught:
        con.execute("SELECT i FROM t WHERE tone(r) OVER () = 'a'")
    assert isinstance(caught.value.__cause__, duckdb.BinderException)
    assert engine.asked == []


def test_windows_of_the_users_own_keep_duckdbs_error(con: Connection) -> None:
    con.execute("CREATE MACRO tone(x) AS smart_llm('Tone: ' || x)")
    with pytest.raises(duckdb.BinderException, match="window"):
        con.execute("SELECT i FROM t WHERE rank() OVER () = 1")


def test_macros_work_inside_transactions(con: Connection) -> None:
    con.execute("CREATE MACRO tone(x) AS smart_llm('Tone: ' || x)")
    expected = con.execute("SELECT i FROM t QUALIFY tone(r) = 'a'").fetchall()
    assert expected
    for run in (con.execute, con.sql):
        con.begin()
        assert sorted(run("SELECT i FROM t WHERE tone(r) = 'a'").fetchall()) == sorted(expected)
        con.rollback()
