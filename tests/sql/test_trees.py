"""Walks over trees and copies of them, against sqlglot's own."""

from __future__ import annotations

import pytest
from sqlglot import exp

from smartsql.sql.normalise.calls.clauses import own_calls
from smartsql.sql.normalise.syntax.dialect import parse, sql
from smartsql.sql.normalise.syntax.trees import copied, every, in_order, nodes, own
from tests.sql.corpus import pairs

QUERIES = [before for _, before, _ in pairs("rewrites.sql") if parse(before) is not None]


def _parsed(query: str) -> exp.Expr:
    tree = parse(query)
    assert tree is not None
    return tree


def test_there_are_queries_to_walk_through() -> None:
    assert len(QUERIES) > 20


@pytest.mark.parametrize("query", QUERIES)
def test_walks_find_what_sqlglot_finds_in_the_same_order(query: str) -> None:
    tree = _parsed(query)
    assert [id(node) for node in nodes(tree)] == [id(node) for node in tree.bfs()]
    assert [id(node) for node in in_order(tree)] == [id(node) for node in tree.dfs()]
    kinds = (exp.Select, exp.Column)
    assert [id(n) for n in every(tree, *kinds)] == [id(n) for n in tree.find_all(*kinds)]


@pytest.mark.parametrize("query", QUERIES)
def test_the_own_nodes_of_a_query_are_those_in_no_query_inside_it(query: str) -> None:
    for select in every(_parsed(query), exp.Select):
        inside = [
            node
            for node in in_order(select)
            if node is select
            or (
                node.find_ancestor(exp.Select, exp.SetOperation) is select
                and not isinstance(node, (exp.Select, exp.SetOperation))
            )
        ]
        assert [id(node) for node in own(select)] == [id(node) for node in inside]


@pytest.mark.parametrize("query", QUERIES)
def test_a_copy_is_like_the_one_of_sqlglot(query: str) -> None:
    tree = _parsed(query)
    ours, theirs = copied(tree), tree.copy()
    assert ours == theirs
    assert sql(ours) == sql(theirs) == sql(tree)
    for one, other, source in zip(nodes(ours), nodes(theirs), nodes(tree), strict=True):
        assert one is not source
        assert (type(one), one.arg_key, one.index) == (type(other), other.arg_key, other.index)
        assert one.meta == other.meta
        assert one.parent is None or one in list(one.parent.iter_expressions())


def test_a_change_of_a_copy_leaves_the_tree_alone() -> None:
    tree = _parsed("SELECT smart_llm(r) FROM t WHERE i IN (1, 2)")
    copy = copied(tree)
    for call in own_calls(copy):
        call.replace(exp.Null())
    every(copy, exp.In)[0].append("expressions", exp.Literal.number(3))
    assert sql(tree) == "SELECT smart_llm(r) FROM t WHERE i IN (1, 2)"
    assert sql(copy) == "SELECT NULL FROM t WHERE i IN (1, 2, 3)"
