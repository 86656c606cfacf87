"""`per`: the rows of each group are a set of their own, with a promise, a proof and a report."""

from __future__ import annotations

from collections import Counter
from typing import Any

import duckdb
import numpy as np
import pytest

import smartsql
from smartsql.config import Model, Settings
from smartsql.errors import UnplannableCallError
from smartsql.reports.jointly import MOST_GROUPS
from smartsql.reports.report import report_from_dict
from smartsql.sql.session import Connection
from tests.sql.doubles import RecordingEngine, tone


def sets(engine: RecordingEngine) -> dict[str | None, dict[str, int]]:
    """What was asked by group; each group once."""
    found = {call.group: weights for call, weights in engine.asked}
    assert len(found) == len(engine.asked)
    return found


def wanted(con: Any, group: str, where: str = "true", prompt: str = "r") -> dict[Any, Any]:
    """Rows of each prompt in each group."""
    rows = con.execute(
        f"SELECT ({group})::VARCHAR, {prompt}, count(*) FROM t WHERE {where} AND {prompt} IS NOT "
        "NULL GROUP BY ALL"
    ).fetchall()
    found: dict[Any, dict[str, int]] = {}
    for value, text, count in rows:
        found.setdefault(value, {})[text] = count
    return found


# -- which rows are in which set -------------------------------------------------------------

PLACES = [
    ("SELECT smart_llm(r, per := k) AS a, r FROM t", "k", "true"),
    ("SELECT smart_llm(r, per := k % 2 = 0) AS a, r FROM t WHERE i < 99", "k % 2 = 0", "i < 99"),
    ("SELECT smart_llm(r, per := nullif(g, 2)) AS a, r FROM t", "nullif(g, 2)", "true"),
    ("SELECT smart_llm(r, per := (k, g)) AS a, r FROM t", "(k, g)", "true"),
    ("SELECT smart_llm(r, per := i / 2.0) AS a, r FROM t WHERE i < 300", "i / 2.0", "i < 300"),
    ("SELECT smart_llm(r, per := 'all') AS a, r FROM t", "'all'", "true"),
    ("SELECT smart_llm(r, per := NULL::INTEGER) AS a, r FROM t", "NULL", "true"),
    ("WITH q AS (SELECT r, smart_llm(r, per := k) AS a FROM t) SELECT a, r FROM q", "k", "true"),
    ("SELECT smart_llm(r, per := k) AS a, r FROM t ORDER BY a, i", "k", "true"),
    ("SELECT a, r FROM (SELECT smart_llm(r, per := k) a, r FROM t QUALIFY a <> '')", "k", "true"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "group", "where"), PLACES)
@pytest.mark.parametrize("native", [True, False], ids=["bare", "session"])
def test_each_group_is_a_set_of_exactly_its_rows(
    con: Connection,
    bare: duckdb.DuckDBPyConnection,
    engine: RecordingEngine,
    text: str,
    group: str,
    where: str,
    native: bool,
) -> None:
    found = (bare if native else con).execute(text).fetchall()
    assert all(answer == tone(prompt) for answer, prompt in found)
    assert sets(engine) == wanted(con, group, where)


MOVED = [
    ("SELECT count(*) FROM t WHERE smart_llm(r, per := k) = 'a' AND i < 700", "k", "i < 700"),
    ("SELECT smart_llm(r, per := k), count(*) FROM t GROUP BY 1", "k", "true"),
    ("SELECT k, max(smart_llm(n, per := k)) FROM t GROUP BY k", "k", "true"),
]


@pytest.mark.parametrize(("text", "group", "where"), MOVED)
def test_calls_that_are_moved_keep_their_groups(
    con: Connection, engine: RecordingEngine, text: str, group: str, where: str
) -> None:
    con.execute(text).fetchall()
    assert sets(engine) == wanted(con, group, where, "n" if "(n," in text else "r")


def test_the_table_form_has_groups(con: Connection, engine: RecordingEngine) -> None:
    rows = con.execute("SELECT r, answer FROM smart_llm(t, r, per := k)").fetchall()
    assert len(rows) == 3000 and all(answer == tone(prompt) for prompt, answer in rows)
    assert sets(engine) == wanted(con, "k")


def test_typed_calls_have_groups(con: Connection, engine: RecordingEngine) -> None:
    engine.say = lambda prompt: "true" if tone(prompt) < "8" else "false"
    rows = con.execute("SELECT r, smart_filter(r, 'x', per := k) FROM t").fetchall()
    assert all(answer is (tone(prompt) < "8") for prompt, answer in rows)
    assert sets(engine) == wanted(con, "k")


def test_collations_do_not_merge_groups(con: Connection, engine: RecordingEngine) -> None:
    con.execute("CREATE TABLE c(x VARCHAR COLLATE NOCASE, r VARCHAR)")
    con.execute("INSERT INTO c SELECT ['a', 'A', ''][1 + i % 3], 'text ' || i FROM range(60) z(i)")
    con.execute("SELECT smart_llm(r, per := x) FROM c").fetchall()
    assert {group: len(prompts) for group, prompts in sets(engine).items()} == {
        "a": 20,
        "A": 20,
        "": 20,
    }


def test_many_groups_of_one_row_each_are_all_answered(
    con: Connection, engine: RecordingEngine
) -> None:
    rows = con.execute("SELECT r, smart_llm(r, per := i) FROM t").fetchall()
    assert len(engine.asked) == 3000 and all(answer == tone(prompt) for prompt, answer in rows)


def test_random_tables_are_split_as_group_by_splits_them(
    con: Connection, engine: RecordingEngine
) -> None:
    rng = np.random.default_rng(5)
    for n in (1, 2, 2048, 2049, 30_000):
        engine.asked.clear()
        con.execute("DROP TABLE IF EXISTS t")
        values = rng.integers(0, 12, n)
        prompts = rng.integers(0, 50, n)
        con.execute(
            "CREATE TABLE t AS SELECT nullif(unnest(?), 3) AS k, nullif('p' || unnest(?), 'p7') r",
            [values.tolist(), prompts.tolist()],
        )
        rows = con.execute("SELECT r, smart_llm(r, per := k) FROM t").fetchall()
        assert all(answer == (None if prompt is None else tone(prompt)) for prompt, answer in rows)
        assert sets(engine) == wanted(con, "k")


ODD_GROUPS = [
    "if(i < 299000, 0, i)",  # one huge group, a thousand of one row
    "if(i % 3 = 0, 'NULL', if(i % 3 = 1, NULL, ''))",
    "if(i % 2 = 0, '1', '1.0')",
    "['a', 'A', 'ä', 'a\u0308'][1 + i % 4]",
    "[['a, b'], ['a', 'b'], NULL, [NULL]][1 + i % 4]",
    "'a' || chr(0) || i % 2",
]


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_sets_are_complete_on_any_number_of_threads(
    con: Connection, engine: RecordingEngine, threads: int
) -> None:
    con.execute(f"SET threads = {threads}")
    con.execute(
        "CREATE OR REPLACE TABLE t AS SELECT i, nullif('p' || hash(i) % 100, 'p7') AS r "
        "FROM range(300000) z(i)"
    )
    for group in ODD_GROUPS:
        engine.asked.clear()
        query = f"SELECT count(*) FROM (SELECT r, smart_llm(r, per := {group}) AS a FROM t) WHERE "
        right = "a IS NOT DISTINCT FROM substr(md5(r), 1, 1)"
        assert con.execute(query + right).fetchall() == [(300_000,)]
        assert sets(engine) == wanted(con, group)


def test_a_limit_leaves_no_group_behind_that_disturbs_the_next_statement(
    con: Connection, engine: RecordingEngine
) -> None:
    query = "SELECT smart_llm(r, per := k) FROM t"
    con.execute("BEGIN")
    for _ in range(3):
        con.execute(query)
        con.fetchone()
    con.execute(query).fetchall()
    con.execute("COMMIT")
    # late threads of an abandoned statement may ask for a group of theirs meanwhile, a whole one
    last = engine.asked[-1][0].statement
    asked = [(call.group, weights) for call, weights in engine.asked if call.statement == last]
    expected = wanted(con, "k")
    assert {group for group, _ in asked} == expected.keys()
    assert all(weights == expected[group] for group, weights in asked)


def test_groups_that_change_at_every_evaluation_are_refused(con: Connection) -> None:
    for per in ("uuid()", "random()"):
        with pytest.raises(
            (UnplannableCallError, duckdb.BinderException), match=r"volatile|changes"
        ):
            con.execute(f"SELECT smart_llm(r, per := {per}) FROM t").fetchall()


def test_without_groups_the_plan_is_as_it_was(con: Connection) -> None:
    def plan(query: str) -> str:
        return str(con._con.execute(f"EXPLAIN {query}").fetchall()[0][1])

    whole, grouped = (plan(f"SELECT smart_llm(r{per}) FROM t") for per in ("", ", per := k"))
    assert "OVER ()" in whole and "PARTITION" not in whole and whole.count("Window") == 1
    assert "PARTITION" in grouped and grouped.count("Window") == 1
    assert "OVER ()" not in grouped and "Join" not in grouped


# -- promises, through the engine ------------------------------------------------------------


def session(wrong: set[str], big: Any = None, **settings: Any) -> tuple[Any, Counter[str]]:
    """A session whose small model is wrong about some texts; what the big one is asked."""
    asked: Counter[str] = Counter()

    def reference(texts: list[str]) -> list[str]:
        asked.update(texts)
        return ["yes"] * len(texts)

    def small(texts: list[str]) -> list[str]:
        return ["no" if text in wrong else "yes" for text in texts]

    models = (
        Model(
            name="big",
            kind="python",
            function=reference,
            version="1",
            reference=True,
            input_usd_per_mtok=100,
            output_usd_per_mtok=100,
        ),
        Model(
            name="small",
            kind="python",
            function=small,
            version="1",
            input_usd_per_mtok=1,
            output_usd_per_mtok=1,
        ),
    )
    options = {"store": ":memory:", "seed": 1} | settings
    return smartsql.connect(config=Settings(models=models, **options)), asked


def test_the_promise_holds_in_every_group_and_not_only_over_all() -> None:
    # one group of 200 rows is half wrong; over all 4,000 rows that is 2.5 %
    wrong = {f"text {i}" for i in range(200) if i % 2}
    broken = {"per": 0, "whole": 0}
    for seed in range(5):
        for how, per in (("whole", ""), ("per", ", per := k")):
            con, _ = session(wrong, seed=seed)
            con.execute(
                "CREATE TABLE t AS SELECT 'text ' || i AS x, if(i < 200, 'odd', 'r' || i % 4) AS "
                "k FROM range(4000) z(i)"
            )
            rows = con.execute(
                f"SELECT k, count(*) FILTER (a <> 'yes') / count(*) FROM (SELECT k, smart_llm(x, "
                f"0.1, 0.9{per}) AS a FROM t) GROUP BY k"
            ).fetchall()
            broken[how] += any(share > 0.1 for _, share in rows)
            con.close()
    assert broken["whole"] >= 3  # such a group is what the promise over all rows does not protect
    assert broken["per"] <= 1  # 5 groups at gamma = .9; most of them are never wrong


def test_a_prompt_in_two_groups_is_asked_once() -> None:
    con, asked = session(set())
    con.execute("CREATE TABLE t AS SELECT 'text ' || i % 30 AS x, i % 5 AS k FROM range(600) z(i)")
    con.execute("SELECT smart_llm(x, 0, 0.9, per := k) FROM t").fetchall()
    assert set(asked.values()) == {1} and len(asked) == 30
    con.close()


def test_each_group_has_a_report_and_the_last_one_a_line_for_each() -> None:
    con, _ = session({"text 7"})
    con.execute(
        "CREATE TABLE t AS SELECT 'text ' || i AS x, nullif(i % 3, 2) AS k FROM range(900) z(i)"
    )
    con.execute("SELECT smart_llm(x, 0.1, 0.9, per := k) FROM t").fetchall()
    reports = con.reports
    assert {(r.per, r.group, r.rows) for r in reports} == {
        ("k", value, 300) for value in ("0", "1", None)
    }
    last = reports[-1]
    lines = dict(last.lines())
    for what in ("k = '0'", "k = '1'", "k IS NULL"):
        assert lines[what].startswith("300 rows, ")
    assert (last.promises, last.jointly) == (3, pytest.approx(0.7))
    assert "probability at least 0.7" in lines["jointly"]
    assert any("holds within it with probability 0.9" in note for note in last.notes)
    assert all(line in last.to_html() for line in ("k IS NULL", "jointly"))
    assert report_from_dict(last.to_dict()).groups == last.groups
    table = con.execute('SELECT "group", promises, jointly FROM smart_reports()').fetchall()
    assert [row[1] for row in table] == [1, 2, 3]
    con.close()


def test_a_report_lists_the_largest_groups_only() -> None:
    con, _ = session(set())
    con.execute("CREATE TABLE t AS SELECT 'text ' || i AS x, i % 120 AS k FROM range(250) z(i)")
    con.execute("SELECT smart_llm(x, per := k) FROM t").fetchall()
    last = con.reports[-1]
    assert len(con.reports) == 120 and len(last.groups) == MOST_GROUPS
    assert any("20 smaller groups are not listed" in note for note in last.notes)
    assert last.jointly == 0.0 and any("ask for gamma := 0.999583" in n for n in last.notes)
    con.close()


def test_calls_of_one_statement_say_what_holds_jointly() -> None:
    con, _ = session(set())
    con.execute("CREATE TABLE t AS SELECT 'text ' || i AS x FROM range(300) z(i)")
    con.execute(
        "SELECT smart_llm(x, 0.1, 0.99), smart_llm('b ' || x, 0.05, 0.98), smart_llm('c ' || x, 0, "
        "0.5) FROM t"
    ).fetchall()
    reports = con.reports
    assert [r.promises for r in reports] == [1, 2, 3]
    assert reports[0].jointly is None
    # the call with delta = 0 asks the reference about every row: it cannot fail
    assert reports[-1].jointly == pytest.approx(0.97)
    con.execute("SELECT smart_llm(x, 0.1, 0.9) FROM t").fetchall()
    assert con.reports[-1].promises == 1 and con.reports[-1].jointly is None
    con.close()


def test_reports_of_groups_are_verified_from_the_ledger(tmp_path: Any) -> None:
    from smartsql.ledger import Ledger
    from smartsql.reports.verify import verify

    store = str(tmp_path / "a.sqlite")
    con, _ = session({"text 5", "text 50"}, store=store)
    con.execute("CREATE TABLE t AS SELECT 'text ' || i AS x, i % 2 AS k FROM range(800) z(i)")
    con.execute("SELECT smart_llm(x, 0.1, 0.9, per := k) FROM t").fetchall()
    reports = [report.to_dict() for report in con.reports]
    con.close()
    ledger = Ledger(store)
    for report in reports:
        assert all(check.holds for check in verify(report, ledger)), report["group"]
    ledger.close()
