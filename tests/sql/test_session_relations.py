"""Relations say what to write when a smart call stands where they cannot run it."""

from __future__ import annotations

import duckdb
import pytest

from smartsql.errors import QueryError
from smartsql.sql.session import Connection
from tests.sql.doubles import RecordingEngine, tone


@pytest.mark.parametrize(
    ("method", "argument"),
    [
        ("filter", "smart_llm(r) = 'a'"),
        ("aggregate", "max(smart_llm(r))"),
        ("project", "max(smart_llm(r)) OVER ()"),
    ],
)
def test_a_call_in_a_method_is_explained(
    method: str, argument: str, con: Connection, engine: RecordingEngine
) -> None:
    with pytest.raises(QueryError, match=rf"{method}\(.*Say it in SQL") as caught:
        getattr(con.table("t"), method)(argument)
    assert isinstance(caught.value.__cause__, duckdb.BinderException)
    assert engine.asked == []


def test_the_advised_ways_work(con: Connection) -> None:
    expected = [i for i in range(3000) if tone(f"review {i % 40}") == "a"]
    by_sql = con.sql("SELECT i FROM t WHERE smart_llm(r) = 'a' ORDER BY i")
    answered = con.sql("SELECT *, smart_llm(r) AS answer FROM t").filter("answer = 'a'")
    assert by_sql.fetchall() == [(i,) for i in expected]
    assert answered.project("i").order("i").fetchall() == [(i,) for i in expected]


def test_other_errors_and_other_relations_are_duckdbs(con: Connection) -> None:
    with pytest.raises(duckdb.BinderException, match="nothing"):
        con.table("t").filter("nothing = smart_llm(r)")
    with duckdb.connect() as plain:
        relation = plain.sql("SELECT 1 AS a")
        with pytest.raises(duckdb.BinderException, match="window"):
            relation.filter("rank() OVER () = 1")
        assert relation.filter("a = 1").project("a + 1").fetchall() == [(2,)]
        assert relation.join(relation.set_alias("b"), "a").fetchall() == [(1,)]
