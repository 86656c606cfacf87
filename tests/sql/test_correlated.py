"""Calls in correlated and lateral queries: one set for each, asked before anything is answered."""

from __future__ import annotations

import pytest

from smartsql.errors import UnplannableCallError
from tests.sql.comparing import Pair
from tests.sql.corpus import statements


@pytest.mark.parametrize("statement", statements("correlated.sql"))
def test_a_correlated_call_gives_what_a_plain_function_gives(statement: str, pair: Pair) -> None:
    pair.compare(statement)
    n_calls = statement.count("smart_llm(")
    assert len(pair.engine.asked) <= n_calls, "one set for each call, not one for each row"
    if n_calls == 1:  # a plain plan may ask one call after the other's filter
        assert pair.asked <= pair.wanted


@pytest.mark.parametrize(
    ("statement", "needed"),
    [
        (
            "SELECT i, (SELECT max(smart_llm(u.z)) FROM u WHERE u.i = t.i) FROM t WHERE i < 9",
            "SELECT z FROM u WHERE i < 9",
        ),
        (
            "SELECT i FROM t WHERE k = 1 AND EXISTS (SELECT 1 FROM u WHERE u.i = t.i AND u.b = 2 "
            "AND smart_llm(u.z) > '5')",
            "SELECT z FROM u WHERE b = 2 AND i IN (SELECT i FROM t WHERE k = 1)",
        ),
        (
            "SELECT i FROM t WHERE k = 1 AND EXISTS (SELECT 1 FROM u WHERE u.i = t.i AND "
            "smart_llm(t.z) > '5')",
            "SELECT z FROM t WHERE k = 1 AND i IN (SELECT i FROM u)",
        ),
        (
            "SELECT i, (SELECT smart_llm(u.z || t.z) FROM u WHERE u.i = t.i) FROM t WHERE k = 1",
            "SELECT u.z || t.z FROM t JOIN u USING (i) WHERE k = 1",
        ),
        (
            "SELECT t.i, z.a FROM t, (SELECT smart_llm(t.z) AS a) z WHERE t.k = 2",
            "SELECT z FROM t WHERE k = 2",
        ),
        (
            "SELECT t.i FROM t, (SELECT max(u.w) AS m FROM u WHERE u.i = t.i AND "
            "smart_llm(u.z) > '3') z WHERE t.k = 2",
            "SELECT z FROM u WHERE i IN (SELECT i FROM t WHERE k = 2)",
        ),
        (
            "SELECT a.i, z.a FROM t a JOIN u b ON a.i = b.i, "
            "LATERAL (SELECT smart_llm(a.z || b.z) AS a) z WHERE a.k = 1",
            "SELECT t.z || u.z FROM t JOIN u USING (i) WHERE k = 1",
        ),
    ],
)
def test_only_rows_that_the_correlation_can_reach_are_asked(
    statement: str, needed: str, pair: Pair
) -> None:
    pair.compare(statement)
    assert pair.asked == pair.inputs(needed)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(z.a) FROM t, (SELECT smart_llm(t.r) AS a) z",
        "SELECT count(z.a) FROM t JOIN (SELECT smart_llm(t.r) AS a) z ON true",
        "SELECT count(z.a) FROM t CROSS JOIN (SELECT smart_llm(t.r) AS a) z",
        "WITH q AS (FROM t) SELECT q.i, z.a FROM q CROSS JOIN (SELECT smart_llm(q.r) AS a) z",
        "SELECT z.m FROM t, (SELECT max(u.w) AS m FROM u WHERE u.i = t.i AND "
        "smart_llm(u.r) > '3') z",
    ],
)
def test_a_query_in_from_that_reads_an_earlier_relation_is_lateral(
    statement: str, pair: Pair
) -> None:
    pair.compare(statement)
    assert len(pair.engine.asked) == 1


@pytest.mark.parametrize(
    ("statement", "clause"),
    [
        (
            "SELECT i, (SELECT max(smart_llm(u.r || t.r)) FROM u WHERE u.i = t.i) FROM t",
            "reading it and the query's own columns",
        ),
        (
            "SELECT z.a FROM t, (SELECT max(smart_llm(u.r || t.r)) AS a FROM u WHERE u.i = t.i) z",
            "reading it and the query's own columns",
        ),
        (
            "SELECT k, (SELECT max(w || smart_llm(t.k)) FROM u WHERE u.b = t.k) FROM t GROUP BY k",
            "GROUP BY",
        ),
        (
            "SELECT i, (SELECT smart_llm(max(u.r)) || 'x' FROM u WHERE u.b = t.k) FROM t",
            "over an aggregate",
        ),
        ("SELECT (SELECT list(smart_llm(x)) FROM unnest(l.xs) e(x)) FROM l", "correlated itself"),
        (
            "SELECT i FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.i = t.i AND "
            "smart_llm(smart_llm(u.r) || t.r) > '3')",
            "reading it and the query's own columns",
        ),
        ("SELECT t.i, q.answer FROM t, smart_llm((SELECT t.r AS r), r) q", "reading t.r"),
        ("SELECT t.i, q.answer FROM t, smart_llm(u, t.r) q", "reading t.r"),
    ],
)
def test_what_cannot_be_moved_is_refused_before_anything_is_asked(
    statement: str, clause: str, pair: Pair
) -> None:
    pair.engine.asked.clear()
    with pytest.raises(UnplannableCallError) as caught:
        pair.session.execute(statement)
    assert clause in caught.value.clause
    assert pair.engine.asked == []


def test_a_name_that_only_an_outer_alias_has_keeps_its_meaning(pair: Pair) -> None:
    """`q` is the outer `r`; the relation inside has an `r` of its own."""
    pair.compare("SELECT r AS q, (SELECT count(*) FROM u WHERE smart_llm(q) > '3') FROM t")
    assert pair.asked == pair.inputs("SELECT r FROM t")
