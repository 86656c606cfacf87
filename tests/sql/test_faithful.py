"""What no rule changes keeps its words; what is spelled anew is proven to mean the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlglot import exp

from smartsql.errors import QueryError
from smartsql.sql.normalise import normalise
from smartsql.sql.normalise.syntax.dialect import key, parse, sql
from smartsql.sql.normalise.syntax.origins import origin_of
from smartsql.sql.normalise.syntax.proof import rewritten, same_query
from smartsql.sql.session import Connection
from tests.sql.comparing import Pair
from tests.sql.corpus import statements


@pytest.mark.parametrize("statement", statements("faithful.sql"))
def test_syntax_comes_through_a_rewrite(statement: str, pair: Pair) -> None:
    assert normalise(statement, pair.session._con) != statement or "OVER" not in statement
    pair.compare(statement)


UNTOUCHED = [
    "SELECT interval 90 day, @i, r ^@ 'x', if(a, b, c), X'00', 1_000, i ** 2 -- all of it",
    "SELECT trim(BOTH 'x' FROM r), position('a' IN r), substring(r FROM 1 FOR 2) FROM t",
    "SELECT first_value(n IGNORE NULLS) OVER (ORDER BY i), list(i ORDER BY k NULLS LAST) FROM t",
    "SELECT mode() WITHIN GROUP (ORDER BY i), count(*) FILTER (i > 2) FROM t",
    "FROM t SELECT i::UHUGEINT, ARRAY[i, k], x IS NOT TRUE, y IS UNKNOWN, *COLUMNS('a')",
    "(SELECT 1 LIMIT 1) UNION ALL (SELECT 2 LIMIT 1) ORDER BY 1 LIMIT 3",
    "SELECT a.x, (b || a.y).upper() FROM t a ASOF LEFT JOIN u b USING (k, i) WHERE a.x IN (1,2)",
    "SELECT list_transform(xs, lambda x: x + 1), [y + 1 FOR y IN xs IF y > 1], xs[1:2] FROM l",
    "WITH v(x) AS (VALUES ('a'), ('b')) SELECT k: x, e'a\\'b', $$c$$ FROM v",
]


@pytest.mark.parametrize("text", UNTOUCHED)
def test_a_tree_that_nothing_changed_is_its_text(text: str) -> None:
    tree = parse(text)
    assert tree is not None
    assert sql(tree) == text.partition(" --")[0]


@pytest.mark.parametrize(
    ("text", "column", "new", "expected"),
    [
        ("SELECT a-(b) FROM t", "b", exp.Neg(this=exp.column("z")), "SELECT a-(-z) FROM t"),
        ("SELECT NOT(b) FROM t", "b", exp.column("z"), "SELECT NOT(z) FROM t"),
        ("SELECT trim(BOTH 'x' FROM b)", "b", exp.column("z"), "SELECT trim(BOTH 'x' FROM z)"),
        ("SELECT b::INT FROM t", "b", exp.column("z", table="q"), "SELECT q.z::INT FROM t"),
        ("SELECT interval (b) day", "b", exp.column("z"), "SELECT interval (z) day"),
    ],
)
def test_only_the_words_of_a_part_that_changed_are_exchanged(
    text: str, column: str, new: exp.Expr, expected: str
) -> None:
    tree = parse(text)
    assert tree is not None
    root = origin_of(tree)
    for node in list(tree.find_all(exp.Column)):
        if node.name == column:
            node.replace(new.copy())
    assert rewritten(text, tree, root) == expected


def test_words_that_would_run_together_are_kept_apart() -> None:
    tree = parse("SELECT CASE WHEN(a)THEN(b)END, c-(d) FROM t")
    assert tree is not None
    for node in list(tree.find_all(exp.Paren)):
        inner = node.this
        node.replace(exp.Neg(this=inner.copy()) if inner.name == "d" else inner.copy())
    assert sql(tree) == "SELECT CASE WHEN a THEN b END, c- -d FROM t"


def test_a_condition_that_sqlglot_splits_elsewhere_is_not_rewritten() -> None:
    text = "SELECT i FROM t WHERE a AND b"
    tree = parse(text)
    assert tree is not None
    root = origin_of(tree)
    assert root is not None
    # as if the parser had read only the first word of the condition
    part = origin_of(tree.args["where"].this.this)
    condition = origin_of(tree.args["where"].this)
    assert part is not None
    assert condition is not None
    part.last = condition.last
    tree.args["where"].this.this.replace(exp.column("z"))
    assert rewritten(text, tree, root) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT a FROM t", "SELECT a AS a FROM t"),
        ("SELECT a FROM t", "SELECT DISTINCT a FROM t"),
        ("SELECT a FROM t", "SELECT a FROM t u"),
        ("SELECT a FROM t", "SELECT a FROM main.t"),
        ("SELECT 0", "SELECT 1"),
        ("SELECT 1", "SELECT '1'"),
        ("SELECT NULL", "SELECT ''"),
        ("SELECT false", "SELECT 0"),
        ("SELECT sum(a) FROM t", "SELECT sum(DISTINCT a) FROM t"),
        ("SELECT sum(a) FROM t", "SELECT sum(a) FILTER (a > 0) FROM t"),
        ("SELECT sum(a) FROM t", "SELECT sum(a) OVER () FROM t"),
        ("SELECT list(a) FROM t", "SELECT list(a ORDER BY a) FROM t"),
        ("SELECT a FROM t ORDER BY a", "SELECT a FROM t ORDER BY a DESC"),
        ("SELECT a FROM t ORDER BY a", "SELECT a FROM t ORDER BY a NULLS FIRST"),
        ("SELECT a FROM t LIMIT 1", "SELECT a FROM t LIMIT 1%"),
        ("SELECT a FROM t GROUP BY a", "SELECT a FROM t GROUP BY ALL"),
        ("SELECT CAST(a AS INT) FROM t", "SELECT TRY_CAST(a AS INT) FROM t"),
        ("SELECT a FROM t JOIN u USING (a)", "SELECT a FROM t LEFT JOIN u USING (a)"),
        ("SELECT a FROM t WHERE a < 0", "SELECT a FROM t WHERE a <= 0"),
        ("SELECT a FROM t UNION SELECT 1", "SELECT a FROM t UNION ALL SELECT 1"),
        ("SELECT a FROM t WHERE a IN (1)", "SELECT a FROM t WHERE a NOT IN (1)"),
        ("WITH c AS (SELECT 1) FROM c", "WITH c AS MATERIALIZED (SELECT 1) FROM c"),
    ],
)
def test_the_proof_tells_queries_apart_that_differ_in_what_duckdb_takes_for_granted(
    one: str, other: str
) -> None:
    assert same_query(one, f"{one} -- the same")
    assert same_query(other, f" {other}")
    assert not same_query(one, other)


def _chain(operator: str, terms: int) -> str:
    return f" {operator} ".join(f"i <> {k}" for k in range(terms))


@pytest.mark.parametrize("operator", ["AND", "OR"])
def test_long_chains_of_conditions_are_planned(con: Connection, operator: str) -> None:
    query = f"SELECT i FROM t WHERE ({_chain(operator, 500)}) AND smart_llm(r) = 'a'"
    planned = normalise(query, con._con)
    assert _chain(operator, 500) in planned
    assert "QUALIFY smart_llm(r) = 'a'" in planned


def test_chains_without_end_are_refused_with_a_way_out(con: Connection) -> None:
    query = f"SELECT i FROM t WHERE ({_chain('OR', 3000)}) AND smart_llm(r) = 'a'"
    with pytest.raises(QueryError, match=r"nested, or chained .* Write `x IN \(\.\.\)`"):
        normalise(query, con._con)


def test_equal_nodes_have_equal_keys_whatever_their_white_space() -> None:
    trees = [parse(f"SELECT {text}") for text in ("f( r,1 )", "f(r , 1)", "f(r, /* x */ 1)")]
    assert len({key(tree.expressions[0]) for tree in trees if tree is not None}) == 1
    other = parse("SELECT f(trim(LEADING 'x' FROM r), 1)")
    same = parse("SELECT f(trim(TRAILING 'x' FROM r), 1)")
    assert other is not None
    assert same is not None
    assert key(other.expressions[0]) != key(same.expressions[0])


_ATOMS = st.sampled_from(
    ["i", "k", "t.g", "1_0", "g::INT! + 1", "(i)", "-k", "i::INT", "@k", "i // 2"]
)
_CONDITIONS = st.recursive(
    st.one_of(
        st.builds("{} = {}".format, _ATOMS, _ATOMS),
        st.builds("{} NOT BETWEEN {} AND {}".format, _ATOMS, _ATOMS, _ATOMS),
        st.builds("{} IS NOT DISTINCT FROM {}".format, _ATOMS, _ATOMS),
        st.builds("{} IN ({}, {})".format, _ATOMS, _ATOMS, _ATOMS),
        st.sampled_from(["r ^@ 'rev'", "n IS NULL", "smart_llm(r) > '7'", "smart_llm( n )<'4'"]),
    ),
    lambda inner: st.one_of(
        st.builds("{} AND {}".format, inner, inner),
        st.builds("{}  OR {}".format, inner, inner),
        st.builds("({})".format, inner),
        st.builds("NOT ({})".format, inner),
        st.builds("CASE WHEN {} THEN {} ELSE {} END".format, inner, inner, inner),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(condition=_CONDITIONS)
def test_any_condition_lets_the_same_rows_through(pair: Pair, condition: str) -> None:
    pair.compare(f"SELECT i, @k, interval 3 day FROM t WHERE {condition}")
