"""Calls are asked about no more than what a row-by-row evaluation would need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smartsql.sql.session import Connection, connect
from tests.sql.comparing import Plain
from tests.sql.doubles import RecordingEngine

TABLES = """
CREATE TABLE t AS SELECT i, nullif(i % 5, 3) AS k, nullif(i % 4, 2) AS g,
    CASE WHEN i % 7 <> 5 THEN 's' || i END AS s, CASE i % 3 WHEN 0 THEN true WHEN 1 THEN false END
    AS b, CASE WHEN i % 6 = 1 THEN 'no number' ELSE (i % 6)::VARCHAR END AS n FROM range(36) x(i);
CREATE TABLE u AS SELECT i, nullif(i % 6, 4) AS k, CASE WHEN i % 5 <> 2 THEN 'w' || i END AS s
    FROM range(14) x(i);
"""


@pytest.fixture(scope="module")
def plain() -> Iterator[Plain]:
    made = Plain(TABLES)
    with made.con:
        yield made


@pytest.fixture(scope="module")
def engine() -> RecordingEngine:
    return RecordingEngine()


@pytest.fixture(scope="module")
def session(engine: RecordingEngine) -> Iterator[Connection]:
    with connect(engine=engine) as con:
        con.execute(TABLES)
        yield con


NEEDED = {
    "a branch of CASE": (
        "SELECT CASE WHEN k = 1 THEN smart_llm(s) ELSE 'none' END FROM t",
        "SELECT s FROM t WHERE k = 1",
    ),
    "branches in turn": (
        "SELECT CASE WHEN k = 1 THEN 'x' WHEN g = 1 THEN smart_llm(s) END FROM t",
        "SELECT s FROM t WHERE k IS DISTINCT FROM 1 AND g = 1",
    ),
    "CASE over values": (
        "SELECT CASE k WHEN 1 THEN 'x' WHEN 2 THEN smart_llm(s) END FROM t",
        "SELECT s FROM t WHERE k = 2",
    ),
    "COALESCE": ("SELECT coalesce(n, smart_llm(s)) FROM t", "SELECT s FROM t WHERE n IS NULL"),
    "if": ("SELECT if(b, 'x', smart_llm(s)) FROM t", "SELECT s FROM t WHERE b IS NOT TRUE"),
    "AND as a value": (
        "SELECT k = 1 AND smart_llm(s) > '7' FROM t",
        "SELECT s FROM t WHERE k = 1 IS NOT FALSE",
    ),
    "AND as a value, written later": (
        "SELECT smart_llm(s) > '7' AND k = 1 FROM t",
        "SELECT s FROM t WHERE k = 1 IS NOT FALSE",
    ),
    "OR as a value": (
        "SELECT b OR smart_llm(s) > '7' FROM t",
        "SELECT s FROM t WHERE b IS NOT TRUE",
    ),
    "OR in WHERE": (
        "SELECT i FROM t WHERE b OR smart_llm(s) > '7'",
        "SELECT s FROM t WHERE b IS NOT TRUE",
    ),
    "NOT OR in WHERE": (
        "SELECT i FROM t WHERE NOT (b OR smart_llm(s) > '7')",
        "SELECT s FROM t WHERE NOT b",
    ),
    "NOT AND in WHERE": (
        "SELECT i FROM t WHERE NOT (b AND smart_llm(s) > '7')",
        "SELECT s FROM t WHERE b IS NOT FALSE",
    ),
    "either way": (
        "SELECT smart_llm(s) FROM t WHERE (k = 1 AND smart_llm(s) > '7') "
        "OR (g = 1 AND smart_llm(s) < '3')",
        "SELECT s FROM t WHERE k = 1 OR g = 1",
    ),
    "FILTER around a call": (
        "SELECT max(smart_llm(s)) FILTER (WHERE k = 1) FROM t",
        "SELECT s FROM t WHERE k = 1",
    ),
    "FILTER on a call": (
        "SELECT count(*) FILTER (WHERE smart_llm(s) > '7' AND k = 1) FROM t",
        "SELECT s FROM t WHERE k = 1",
    ),
    "inside an aggregate only": (
        "SELECT k, CASE WHEN k > 1 THEN max(CASE WHEN b THEN smart_llm(s) END) END FROM t "
        "GROUP BY k",
        "SELECT s FROM t WHERE b",
    ),
    "what is cast in a branch": (
        "SELECT CASE n WHEN 'no number' THEN '' ELSE CASE WHEN n::INTEGER > 3 THEN smart_llm(s) "
        "END END FROM t",
        "SELECT s FROM t WHERE TRY_CAST(n AS INTEGER) > 3",
    ),
    "one condition after the other": (
        "SELECT i FROM t WHERE smart_llm(s) > '7' AND smart_llm(s || k) > '7'",
        "SELECT s FROM t UNION SELECT s || k FROM t WHERE smart_llm(s) > '7'",
    ),
    "fewer calls first": (
        "SELECT i FROM t WHERE smart_llm(s) > smart_llm(s || k) AND smart_llm(s || g) > '7'",
        "SELECT s || g FROM t UNION SELECT unnest([s, s || k]) FROM t "
        "WHERE smart_llm(s || g) > '7'",
    ),
    "a condition above a subquery": (
        "SELECT a FROM (SELECT k, smart_llm(s) AS a FROM t) q WHERE q.k = 1 AND a > '3'",
        "SELECT s FROM t WHERE k = 1",
    ),
    "a condition above groups": (
        "SELECT * FROM (SELECT k, max(smart_llm(s)) AS a FROM t GROUP BY k) WHERE k = 1",
        "SELECT s FROM t WHERE k = 1",
    ),
    "a condition above all columns": (
        "WITH q AS (SELECT *, smart_llm(s) AS a FROM t) SELECT a FROM q WHERE k = 1",
        "SELECT s FROM t WHERE k = 1",
    ),
    "a condition above a call in FROM": (
        "SELECT i, answer FROM smart_llm((SELECT * FROM t), s) WHERE k = 1 AND answer > '3'",
        "SELECT s FROM t WHERE k = 1",
    ),
    "a join above a subquery": (
        "SELECT q.a FROM (SELECT i, smart_llm(s) AS a FROM t) q JOIN u ON q.i = u.i WHERE u.k = 1",
        "SELECT t.s FROM t JOIN u USING (i) WHERE u.k = 1",
    ),
    "the right side of a left join": (
        "SELECT u.i, q.a FROM u LEFT JOIN (SELECT i, smart_llm(s) AS a FROM t) q USING (i)",
        "SELECT t.s FROM t JOIN u USING (i)",
    ),
    "LIMIT above a subquery": (
        "SELECT * FROM (SELECT i, smart_llm(s) AS a FROM t) ORDER BY i LIMIT 3 OFFSET 1",
        "SELECT s FROM t ORDER BY i LIMIT 3 OFFSET 1",
    ),
    "LIMIT beside a window": (
        "SELECT i, sum(k) OVER (ORDER BY i), smart_llm(s) FROM t ORDER BY i LIMIT 3",
        "SELECT s FROM t ORDER BY i LIMIT 3",
    ),
    "LIMIT of groups": (
        "SELECT k, count(*), smart_llm(max(s)) FROM t GROUP BY k ORDER BY k LIMIT 2",
        "SELECT max(s) FROM t GROUP BY k ORDER BY k LIMIT 2",
    ),
    "LIMIT of distinct rows": (
        "SELECT DISTINCT k, smart_llm('k' || k) FROM t ORDER BY k LIMIT 2",
        "SELECT DISTINCT 'k' || k FROM t ORDER BY 1 LIMIT 2",
    ),
    "DISTINCT ON": (
        "SELECT DISTINCT ON (k) k, i, smart_llm(s) FROM t ORDER BY k, i",
        "SELECT s FROM (SELECT DISTINCT ON (k) k, s FROM t ORDER BY k, i)",
    ),
    "QUALIFY of a window": (
        "SELECT i, smart_llm(s) FROM t QUALIFY row_number() OVER (PARTITION BY k ORDER BY i) = 1",
        "SELECT s FROM t QUALIFY row_number() OVER (PARTITION BY k ORDER BY i) = 1",
    ),
    "QUALIFY of a window and a call": (
        "SELECT i FROM t QUALIFY rank() OVER (PARTITION BY k ORDER BY i) = 1 AND "
        "smart_llm(s) > '3'",
        "SELECT s FROM t QUALIFY rank() OVER (PARTITION BY k ORDER BY i) = 1",
    ),
    "LIMIT in a scalar subquery": (
        "SELECT (SELECT smart_llm(s) FROM t ORDER BY i LIMIT 1), ARRAY(SELECT smart_llm(s) FROM u "
        "ORDER BY i LIMIT 2)",
        "SELECT s FROM u WHERE i < 2 UNION SELECT s FROM t WHERE i < 1",
    ),
    "EXISTS of a column": ("SELECT EXISTS (SELECT smart_llm(s) FROM t)", "SELECT s FROM t LIMIT 0"),
}


@pytest.mark.parametrize("what", NEEDED)
def test_only_what_is_needed_is_asked(
    what: str, plain: Plain, session: Connection, engine: RecordingEngine
) -> None:
    query, needed = NEEDED[what]
    engine.asked.clear()
    ours = session.execute(query).fetchall()
    asked = set(engine.prompts)
    wanted = {row[0] for row in plain.con.execute(needed).fetchall()} - {None}
    assert asked == wanted
    if "FROM smart_llm(" not in query:
        theirs = plain.con.execute(query).fetchall()
        assert sorted(map(repr, ours)) == sorted(map(repr, theirs))


# -- any query ---------------------------------------------------------------------------------

CALL = "smart_llm({p}s)"
ATOMS = ["{p}k = 1", "{p}k > 2", "{p}k IS NULL", "{p}i % 2 = 0", "{p}i < 9", "{p}k IN (0, 4)"]
ANSWERED = [f"{CALL} > '7'", f"{CALL} = 'a'", f"{CALL} IS NULL", f"{CALL} < {CALL} || 'x'"]


def conditions(*, asks: bool) -> st.SearchStrategy[str]:
    """Conditions with a place for the prefix of their columns."""
    leaves = st.sampled_from([*ATOMS, *ANSWERED] if asks else ATOMS)
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(
                lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
            ),
            inner.map(lambda one: f"(NOT {one})"),
            st.tuples(inner, inner, inner).map(
                lambda parts: f"CASE WHEN {parts[0]} THEN {parts[1]} ELSE {parts[2]} END"
            ),
            st.tuples(inner, inner).map(lambda parts: f"coalesce({parts[0]}, {parts[1]})"),
            st.tuples(inner, inner).map(lambda parts: f"if({parts[0]}, {parts[1]}, NULL)"),
        ),
        max_leaves=5,
    )


CHEAP, SMART = conditions(asks=False), conditions(asks=True)
VALUES = st.one_of(
    SMART,
    st.tuples(CHEAP, SMART).map(
        lambda parts: f"CASE WHEN {parts[0]} THEN {CALL} WHEN {parts[1]} THEN 'm' ELSE {CALL} END"
    ),
    st.just(CALL),
)
LIMITS = st.sampled_from(["", " LIMIT 2", " LIMIT 5 OFFSET 1", " LIMIT 0", " LIMIT 100"])
COLUMN = "smart_llm(s)"


@st.composite
def queries(draw: st.DrawFn) -> str:
    """A query with one text of a call, ordered by a column without equal values."""

    def some(strategy: st.SearchStrategy[str], prefix: str = "") -> str:
        return draw(strategy).replace("{p}", prefix)

    limit = draw(LIMITS)
    kind = draw(st.sampled_from(["rows", "groups", "subquery", "join", "exists", "window"]))
    if kind == "rows":
        return (
            f"SELECT i, {some(VALUES)} AS v, {some(VALUES)} FROM t WHERE {some(SMART)} "
            f"ORDER BY i{limit}"
        )
    if kind == "groups":
        return (
            f"SELECT k, count(*) FILTER (WHERE {some(SMART)}), max({COLUMN}) FILTER (WHERE "
            f"{some(CHEAP)}) AS m FROM t WHERE {some(SMART)} GROUP BY k ORDER BY k{limit}"
        )
    if kind == "subquery":
        return (
            f"SELECT q.a, i FROM (SELECT i, k, s, {some(VALUES)} AS a FROM t WHERE {some(SMART)}) "
            f"AS q WHERE {some(CHEAP, 'q.')} ORDER BY i{limit}"
        )
    if kind == "join":
        side = draw(st.sampled_from(["JOIN", "LEFT JOIN", "RIGHT JOIN"]))
        kept = "" if side == "RIGHT JOIN" else f"WHERE {some(CHEAP, 'u.')} "
        return (
            f"SELECT u.i AS x, q.i AS y, q.a FROM u {side} (SELECT i, k, {COLUMN} AS a FROM t "
            f"WHERE {some(CHEAP)}) q ON u.k = q.k AND {some(CHEAP, 'q.')} "
            f"{kept}ORDER BY x, y{limit}"
        )
    if kind == "exists":
        return (
            f"SELECT i FROM u WHERE EXISTS (SELECT i FROM t WHERE {some(SMART)}) AND "
            f"{some(CHEAP)} ORDER BY i{limit}"
        )
    return (
        f"SELECT i, rank() OVER (PARTITION BY k ORDER BY i) AS nr, {some(VALUES)} AS v FROM t "
        f"WHERE {some(CHEAP)} QUALIFY nr < 4 ORDER BY i{limit}"
    )


@settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(query=queries())
def test_any_query_gives_what_plain_evaluation_gives_and_asks_no_more(
    query: str, plain: Plain, session: Connection, engine: RecordingEngine
) -> None:
    plain.asked.clear()
    engine.asked.clear()
    theirs = plain.con.execute(query)
    wanted = [(column[0], str(column[1])) for column in theirs.description], theirs.fetchall()
    ours = session.execute(query)
    got = [(column[0], str(column[1])) for column in ours.description], ours.fetchall()
    assert got == wanted
    asked = set(engine.prompts)
    stops = "EXISTS" in query or " LIMIT " in query
    last_wave = len(engine.asked[-1][1]) if stops and engine.asked else 0
    assert len(asked) <= len(plain.asked) + last_wave
