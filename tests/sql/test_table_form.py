"""FROM smart_llm(..): all that FROM takes, with the columns of the contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sql.comparing import Pair

ADDED = ["answer", "model", "source", "confidence", "cost_usd", "error"]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    both = Pair("CREATE VIEW v AS SELECT i, r FROM t WHERE k = 2")
    yield both
    both.close()


@pytest.mark.parametrize(
    ("form", "plain"),
    [
        ("smart_llm(t, r)", "smart_llm(t, r)"),
        ("smart_llm('t', 'Q: ' || r)", "smart_llm(t, 'Q: ' || r)"),
        ("smart_llm(main.t, r) AS q", "smart_llm(t, r) AS q"),
        ("smart_llm(v, r, delta := 0.2, gamma := 0.9)", "smart_llm(v, r)"),
        ("smart_llm(tbl := v, col := r)", "smart_llm(v, r)"),
        ('smart_llm("s.x"."t.1", "a.b")', "p"),
        ('smart_llm("日本", "レビュー")', 'smart_llm("日本", "レビュー")'),
        ("smart_llm((SELECT i, r FROM t WHERE k = 2), r)", "smart_llm(v, r)"),
        ("smart_llm((FROM v), r) q", "smart_llm(v, r) q"),
        ("smart_llm((SELECT i, r FROM t WHERE k = 2), r) q(a, b, c)", "smart_llm(v, r) q(a, b, c)"),
        ("smart_llm((VALUES ('a'), ('b')), col0)", "w"),
        ("smart_llm(range(5), range)", "n"),
    ],
)
def test_every_form_gives_the_relation_and_the_columns_of_the_answers(
    form: str, plain: str, pair: Pair
) -> None:
    names = {
        "p": ('SELECT * FROM "s.x"."t.1"', '"a.b"'),
        "w": ("VALUES ('a'), ('b')", "col0"),
        "n": ("FROM range(5)", "range"),
    }
    if plain in names:
        query, column = names[plain]
        plain = f"smart_llm({plain}, {column})"
        pair.compare(
            f"SELECT * FROM {form}", f"WITH {plain[10]} AS ({query}) SELECT * FROM {plain}"
        )
    else:
        pair.compare(f"SELECT * FROM {form}", f"SELECT * FROM {plain}")
    assert pair.asked == pair.wanted


def test_files_and_table_functions_over_them_are_read(pair: Pair, tmp_path: Path) -> None:
    for name in ("f.parquet", "f.csv"):
        path = str(tmp_path / name)
        pair.plain.execute(f"COPY (SELECT i, r FROM t WHERE k = 1) TO '{path}'")
        reader = f"read_{name.removeprefix('f.')}('{path}')"
        for table in (f"'{path}'", reader):
            pair.compare(
                f"SELECT * FROM smart_llm({table}, r)",
                f"WITH q AS (FROM '{path}') SELECT * FROM smart_llm(q, r)",
            )
            assert len(pair.engine.asked) == 1


@pytest.mark.parametrize(
    ("statement", "plain"),
    [
        (
            "SELECT i FROM t WHERE i IN (SELECT i FROM smart_llm(t, r) WHERE answer > '5')",
            "WITH q AS (FROM t) SELECT i FROM t WHERE i IN "
            "(SELECT i FROM smart_llm(q, r) WHERE answer > '5')",
        ),
        (
            "SELECT t.i, q.answer FROM t, smart_llm(t, r) q WHERE q.i = t.i",
            "WITH p AS (FROM t) SELECT t.i, q.answer FROM t, smart_llm(p, r) q WHERE q.i = t.i",
        ),
        (
            "SELECT a.answer, b.answer FROM smart_llm(t, r) a JOIN smart_llm(t, r) b USING (i)",
            "SELECT a.answer, b.answer FROM smart_llm(t, r) a JOIN (FROM smart_llm('t', r)) b "
            "USING (i)",
        ),
        (
            "SELECT q.answer FROM smart_llm((SELECT i, r FROM t WHERE smart_llm(n) > '5'), r) q "
            "WHERE smart_llm(q.answer) > '2'",
            "WITH p AS (SELECT i, r FROM t WHERE smart_llm(n) > '5') "
            "SELECT q.answer FROM smart_llm(p, r) q WHERE smart_llm(q.answer) > '2'",
        ),
    ],
)
def test_names_of_outer_relations_do_not_get_in_the_way(
    statement: str, plain: str, pair: Pair
) -> None:
    pair.compare(statement, plain)


def test_the_details_are_the_engines(pair: Pair) -> None:
    found = pair.session.execute('SELECT * FROM smart_llm("s.x"."t.1", "a.b") LIMIT 1')
    assert found.description is not None
    assert [column[0] for column in found.description][-6:] == ADDED
    row = found.fetchone()
    assert row is not None
    assert row[-5:] == ("double", "reference", 0.5, 0.01, None)
