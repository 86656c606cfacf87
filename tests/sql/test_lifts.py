"""Calls that are computed one query below give what a plain function gives, and ask no more."""

from __future__ import annotations

import pytest

from smartsql.errors import UnplannableCallError
from smartsql.sql.normalise import normalise
from tests.sql.comparing import Pair
from tests.sql.corpus import statements


@pytest.mark.parametrize("statement", statements("lifts.sql"))
def test_a_lifted_call_gives_and_asks_what_a_plain_function_does(
    statement: str, pair: Pair
) -> None:
    pair.compare(statement)
    assert pair.asked <= pair.wanted


REFUSED = {
    "SELECT smart_llm(r) FILTER (WHERE k = 1) FROM t": ("FILTER", "CASE WHEN"),
    "SELECT smart_llm(r) OVER () FROM t": ("OVER", "Leave OVER out"),
    "SELECT i FROM t WHERE smart_llm(r ORDER BY i) = 'a'": ("ORDER BY", "Leave ORDER BY out"),
    "SELECT smart_llm(DISTINCT r) FROM t": ("DISTINCT", "asked only once"),
    "SELECT list_transform([r], lambda x: smart_llm(x)) FROM t": ("a lambda", "Unnest the list"),
    "SELECT max(smart_llm(COLUMNS('^r$'))) FROM t JOIN u USING (i)": ("COLUMNS", "columns out"),
    "SELECT r, r FROM t UNION SELECT r, w FROM u ORDER BY smart_llm(r)": (
        "ORDER BY of a set operation",
        "subquery around it",
    ),
    "PIVOT t ON k USING smart_llm(max(r))": ("PIVOT", "Pivot first"),
    "SELECT max(smart_llm(min(r))) FROM t": ("an aggregate", "Aggregate in a subquery"),
}


@pytest.mark.parametrize("statement", REFUSED)
def test_what_cannot_be_lifted_is_refused_with_clause_reason_and_rewrite(
    statement: str, pair: Pair
) -> None:
    pair.engine.asked.clear()
    with pytest.raises(UnplannableCallError) as caught:
        pair.session.execute(statement)
    clause, rewrite = REFUSED[statement]
    assert clause in caught.value.clause
    assert rewrite in caught.value.rewrite
    assert f"{caught.value.reason}. {caught.value.rewrite}" in str(caught.value)
    assert pair.engine.asked == []


def test_columns_are_written_out_only_where_a_call_must_move(pair: Pair) -> None:
    text = "SELECT smart_llm(COLUMNS('^(r|n)$')) FROM t"
    assert normalise(text, pair.session._con) == text


def test_equal_calls_are_one_call_however_they_are_spaced(pair: Pair) -> None:
    pair.compare(
        "SELECT max(smart_llm(r)), min(smart_llm( r )), count(smart_llm(r /* x */)) FROM t"
    )
    assert len(pair.engine.asked) == 1


def test_a_function_behind_a_dot_reads_its_column_through_a_nested_join(pair: Pair) -> None:
    pair.compare(
        "SELECT (a.r || b.w).upper(), a.r.upper().lower(), count(*) OVER () "
        "FROM t a JOIN u b USING (i) WHERE smart_llm(a.r) > '3'"
    )
