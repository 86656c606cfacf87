"""Calls in conditions of joins give what a plain function gives, and ask what can matter."""

from __future__ import annotations

import pytest

from smartsql.errors import UnplannableCallError
from smartsql.sql.normalise import normalise
from tests.sql.comparing import Pair
from tests.sql.corpus import statements

ONE_SIDE_FIRST = {"NATURAL LEFT JOIN", "SEMI JOIN u ON t.i = u.i AND smart_llm(u.r)"}
"""Statements whose plain plan happens to ask one side only of rows that the other let through."""


@pytest.mark.parametrize("statement", statements("joins.sql"))
def test_a_condition_matches_the_rows_that_a_plain_function_would_match(
    statement: str, pair: Pair
) -> None:
    pair.compare(statement)
    if not any(form in statement for form in ONE_SIDE_FIRST):
        assert pair.asked <= pair.wanted


@pytest.mark.parametrize(
    ("statement", "needed"),
    [
        (
            "SELECT * FROM t a LEFT JOIN u b ON a.i = b.i AND b.b < 2 AND smart_llm(b.z) > '5'",
            "SELECT b.z FROM u b WHERE b.b < 2",
        ),
        (
            "SELECT * FROM t a LEFT JOIN u b ON a.i = b.i AND a.k < 2 AND smart_llm(a.z) > '5'",
            "SELECT z FROM t WHERE k < 2 AND i IN (SELECT i FROM u)",
        ),
        (
            "SELECT * FROM t a RIGHT JOIN u b ON a.i = b.i AND a.k < 2 AND smart_llm(a.z) > '5'",
            "SELECT z FROM t WHERE k < 2 AND i IN (SELECT i FROM u)",
        ),
        (
            "SELECT * FROM t a FULL JOIN u b ON a.i = b.i AND b.b = 1 AND smart_llm(b.z) > '5'",
            "SELECT z FROM u WHERE b = 1",
        ),
        (
            "SELECT * FROM t SEMI JOIN u ON t.i = u.i AND u.b = 1 AND smart_llm(u.z) > '5'",
            "SELECT z FROM u WHERE b = 1",
        ),
        (
            "SELECT * FROM t ANTI JOIN u ON t.i = u.i AND t.k = 1 AND smart_llm(t.z) > '5'",
            "SELECT z FROM t WHERE k = 1 AND i IN (SELECT i FROM u)",
        ),
        (
            "SELECT a.z FROM t a LEFT JOIN u b ON a.i = b.i AND smart_llm(b.z) > '5' WHERE a.k = 2",
            "SELECT z FROM u WHERE i IN (SELECT i FROM t WHERE k = 2)",
        ),
    ],
)
def test_only_rows_that_the_cheap_conditions_can_match_are_asked(
    statement: str, needed: str, pair: Pair
) -> None:
    pair.compare(statement)
    assert pair.asked == pair.inputs(needed)


def test_the_column_of_an_answer_stays_hidden(pair: Pair) -> None:
    con = pair.session
    joined = "t a LEFT JOIN u b ON a.i = b.i AND smart_llm(b.r) > '5'"
    for items in ("*", "b.*", "COLUMNS(*)", "* EXCLUDE (k)", "* REPLACE (1 AS k)"):
        described = con.execute(f"SELECT {items} FROM {joined}").description
        assert described is not None
        assert not any("__" in column[0] for column in described)


@pytest.mark.parametrize(
    ("condition", "clause"),
    [
        ("a LEFT JOIN u b ON a.i = b.i AND smart_llm(a.r || b.r) > '5'", "LEFT JOIN, reading more"),
        ("a FULL JOIN u b ON smart_llm(a.r || b.r) > '5'", "FULL JOIN, reading more"),
        (
            "a JOIN u b ON a.i = b.i AND smart_llm(a.r || b.r) > '5' RIGHT JOIN s ON s.id = a.i",
            "condition of JOIN, reading more",
        ),
        (
            "a LEFT JOIN u b ON a.i = b.i LEFT JOIN s ON smart_llm(coalesce(b.r, 'x')) = s.x",
            "rows that an outer join may have filled",
        ),
        ("a POSITIONAL JOIN u b LEFT JOIN s ON smart_llm(a.r) = s.x", "POSITIONAL JOIN"),
    ],
)
def test_conditions_that_cannot_be_planned_are_refused_before_anything_is_asked(
    condition: str, clause: str, pair: Pair
) -> None:
    pair.engine.asked.clear()
    with pytest.raises(UnplannableCallError) as caught:
        pair.session.execute(f"SELECT a.i FROM t {condition}")
    assert clause in caught.value.clause
    assert pair.engine.asked == []


def test_a_relation_read_as_a_row_is_not_widened(pair: Pair) -> None:
    pair.engine.asked.clear()
    with pytest.raises(UnplannableCallError, match="whole rows of a"):
        pair.session.execute("SELECT a FROM t a LEFT JOIN u b ON smart_llm(a.r) = b.w")
    assert pair.engine.asked == []


def test_the_side_that_a_condition_reads_becomes_a_query(pair: Pair) -> None:
    con = pair.session._con
    before = "SELECT a.i FROM t a LEFT JOIN u b ON a.i = b.i AND b.b = 1 AND smart_llm(b.r) > '5'"
    after = (
        "SELECT a.i FROM t a LEFT JOIN (SELECT *, smart_llm(b.r) AS __ahead_1 FROM u b WHERE "
        "b.b = 1 AND b.i IN (SELECT a.i FROM t a)) AS b ON a.i = b.i AND b.b = 1 AND "
        "b.__ahead_1 > '5'"
    )
    assert normalise(before, con) == after
