"""From SQL text to answers over real HTTP: what is billed, what is kept, what is said."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

import smartsql
from smartsql.reports.verify import verify
from tests.gateway.server import Fault, TestServer

LABELS = ("positive", "negative")


def draw(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def said(model: str, prompt: str) -> str:
    """The reference flips a coin for each prompt; the candidate differs on about 3 of 100."""
    truth = draw(prompt) % 2
    if model == "small" and draw("small" + prompt) % 100 < 3:
        truth = 1 - truth
    return LABELS[truth]


@pytest.fixture
def server() -> Iterator[TestServer]:
    with TestServer(answer=said) as running:
        yield running


def models(server: TestServer, **more: Any) -> list[smartsql.Model]:
    common: dict[str, Any] = {"base_url": server.base_url, **more}
    return [
        smartsql.Model(
            name="big", reference=True, input_usd_per_mtok=10, output_usd_per_mtok=10, **common
        ),
        smartsql.Model(name="small", input_usd_per_mtok=0.3, output_usd_per_mtok=0.3, **common),
    ]


@pytest.fixture
def con(server: TestServer, tmp_path: Path) -> Iterator[Any]:
    with opened(server, tmp_path) as connection:
        yield connection


def opened(server: TestServer, tmp_path: Path, **settings: Any) -> Any:
    connection = smartsql.connect(
        config=smartsql.Settings(),
        models=models(server),
        store=str(tmp_path / "answers.sqlite"),
        **settings,
    )
    connection.execute(
        "CREATE TABLE reviews AS SELECT i AS id, i % 7 AS k, 'review ' || (i % 600) AS review "
        "FROM range(1500) t(i)"
    )
    return connection


STATEMENTS = [
    "SELECT id, smart_llm(review, 0.1, 0.95) AS a FROM reviews",
    "SELECT smart_llm(review) AS a, smart_llm(review) AS b FROM reviews ORDER BY id LIMIT 10",
    "SELECT smart_llm(review) AS a, count(*) AS n FROM reviews GROUP BY review",
    "SELECT id FROM reviews WHERE k < 5 AND smart_llm(review, delta := 0.1) = 'positive'",
    "WITH q AS (SELECT smart_llm(review) AS a FROM reviews) SELECT a, count(*) FROM q GROUP BY a",
    "SELECT smart_llm(review) FROM reviews UNION ALL SELECT smart_llm(review) FROM reviews",
    "SELECT r.id FROM reviews r JOIN range(3) t(i) ON r.k = t.i WHERE smart_llm(review) <> ''",
    "SELECT answer, model FROM smart_llm(reviews, review, delta := 0.1)",
    "CREATE TABLE made AS SELECT smart_llm(review) AS a FROM reviews",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_each_distinct_prompt_is_billed_once_whatever_the_sql_around_the_call(
    con: Any, server: TestServer, statement: str
) -> None:
    con.execute(statement).fetchall()
    billed = server.multiplicity()
    assert set(billed.values()) == {1}
    con.execute("DROP TABLE IF EXISTS made")
    con.execute(statement).fetchall()
    assert server.multiplicity() == billed


def test_the_promise_the_money_and_the_certificate(
    con: Any, server: TestServer, tmp_path: Path
) -> None:
    rows = con.execute("SELECT review, smart_llm(review, 0.1, 0.95) FROM reviews").fetchall()
    assert len(rows) == 1500
    wrong = sum(answer != said("big", review) for review, answer in rows)
    assert wrong <= 150
    report = con.reports[-1]
    assert (report.rows, report.prompts) == (1500, 600)
    assert report.bound <= 0.1
    tokens = [server.billed_tokens(name) for name in ("big", "small")]
    bill = (sum(tokens[0]) * 10 + sum(tokens[1]) * 0.3) / 1e6
    assert report.spend_usd == pytest.approx(bill, rel=1e-9)
    assert report.spend_usd < 0.6 * report.reference_spend_usd
    checks = verify(report.to_dict(), con.engine.store)
    assert [check for check in checks if not check.holds] == []


def test_the_table_form_says_who_answered_and_what_it_cost(con: Any) -> None:
    rows = con.execute(
        "SELECT source, count(*), sum(cost_usd), count(error) "
        "FROM smart_llm(reviews, review, delta := 0.1) GROUP BY source ORDER BY source"
    ).fetchall()
    assert [row[0] for row in rows] == ["assigned", "reference"]
    assert sum(row[1] for row in rows) == 1500
    assert sum(row[2] for row in rows) == pytest.approx(con.reports[-1].spend_usd)
    assert sum(row[3] for row in rows) == 0


def test_reports_models_and_ledger_are_tables(con: Any) -> None:
    con.execute("SELECT smart_llm(review) FROM reviews").fetchall()
    assert con.execute("SELECT rows, prompts FROM smart_reports()").fetchall() == [(1500, 600)]
    models = con.execute("SELECT name, role, price_source FROM smart_models()").fetchall()
    assert models == [
        ("big", "reference", "configuration"),
        ("small", "candidate", "configuration"),
    ]
    ledger = con.execute("SELECT status, count(*), sum(cost_usd) FROM smart_ledger() GROUP BY 1")
    ((status, attempts, cost),) = ledger.fetchall()
    assert status == "ok"
    assert attempts == sum(m.calls for m in con.reports[-1].models)
    assert cost == pytest.approx(con.reports[-1].spend_usd)


def test_faults_cost_time_and_money_but_no_row(con: Any, server: TestServer) -> None:
    server.script("429", "reset", "html", "truncated", Fault("status", status=503))
    rows = con.execute("SELECT review, smart_llm(review) FROM reviews WHERE k < 3").fetchall()
    assert all(answer in LABELS for _, answer in rows)
    attempts = con.execute("SELECT status FROM smart_ledger() WHERE status <> 'ok'").fetchall()
    assert len(attempts) >= 5


def test_a_preview_asks_nobody_and_the_spend_lies_within_it(con: Any, server: TestServer) -> None:
    (preview,) = con.preview("SELECT smart_llm(review, 0.1, 0.95) FROM reviews")
    assert not server.multiplicity()
    assert (preview.rows, preview.prompts) == (1500, 600)
    con.execute("SELECT smart_llm(review, 0.1, 0.95) FROM reviews").fetchall()
    report = con.reports[-1]
    assert preview.low <= preview.expected <= preview.high <= 1.3 * preview.reference_spend
    assert report.spend_usd <= preview.high
    (again,) = con.preview("SELECT smart_llm(review, 0.1, 0.95) FROM reviews")
    assert again.high == 0.0


def test_explain_shows_plan_and_price_and_spends_nothing(con: Any, server: TestServer) -> None:
    rows = con.execute("EXPLAIN SELECT smart_llm(review) FROM reviews WHERE k < ?", [3]).fetchall()
    assert [key for key, _ in rows] == ["physical_plan", "smart_call"]
    assert "WINDOW" in rows[0][1].upper()
    assert "644 rows, 515 distinct prompts" in rows[1][1]
    relation = con.sql("EXPLAIN SELECT smart_llm(review) FROM reviews")
    assert "1,500 rows, 600 distinct prompts" in relation.fetchall()[1][1]
    con.execute("PREPARE p AS SELECT smart_llm(review) FROM reviews WHERE k < $1")
    assert not server.multiplicity()


def test_a_bare_connection_answers_after_register(server: TestServer, tmp_path: Path) -> None:
    bare = duckdb.connect()
    engine = smartsql.register(
        bare, smartsql.Settings(), models=models(server), store=str(tmp_path / "a.sqlite")
    )
    bare.execute("CREATE TABLE r AS SELECT 'review ' || i AS review FROM range(300) t(i)")
    rows = bare.sql("SELECT review, smart_llm(review) FROM r").fetchall()
    assert sum(answer != said("big", review) for review, answer in rows) <= 30
    assert engine.history[-1].rows == 300
    bare.close()
    engine.close()


def test_a_relation_may_outlive_the_name_of_its_connection(
    server: TestServer, tmp_path: Path
) -> None:
    relation = opened(server, tmp_path).sql(
        "SELECT smart_llm(review) AS a FROM reviews WHERE k = 1"
    )
    gc.collect()
    assert len(relation.fetchall()) == 215


def test_two_connections_to_one_database_share_models_and_ledger(
    server: TestServer, tmp_path: Path
) -> None:
    both = [
        smartsql.connect(
            tmp_path / "shop.duckdb",
            smartsql.Settings(),
            models=models(server),
            store=str(tmp_path / "a.sqlite"),
        )
        for _ in range(2)
    ]
    both[0].execute("CREATE TABLE r AS SELECT 'review ' || i AS review FROM range(100) t(i)")
    both[0].close()
    rows = both[1].execute("SELECT smart_llm(review) FROM r").fetchall()
    assert len(rows) == 100
    both[1].close()


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"base_url": "http://127.0.0.1:9"}, "no usable answer", "big"),
    ({"api_key_env": "SMARTSQL_TEST_NO_KEY"}, "'SMARTSQL_TEST_NO_KEY'", "not set"),
    ({"base_url": "http://example.test/v1", "api_key_env": "HOME"}, "http", "https"),
    ({"base_url": "https://example.test/v1"}, "api_key_env", "big"),
]


@pytest.mark.parametrize(("change", "first", "second"), BAD)
def test_a_model_that_cannot_be_reached_is_a_clear_error(
    server: TestServer, tmp_path: Path, change: dict[str, Any], first: str, second: str
) -> None:
    with pytest.raises(smartsql.SmartSQLError) as caught:  # noqa: SIM117
        with smartsql.connect(
            config=smartsql.Settings(),
            models=models(server, **change),
            store=str(tmp_path / "a.sqlite"),
        ) as connection:
            connection.execute("SELECT smart_llm('review ' || i) FROM range(50) t(i)").fetchall()
    assert first in str(caught.value)
    assert second in str(caught.value)


def test_a_price_nobody_knows_names_the_model_and_the_keys(tmp_path: Path) -> None:
    unknown = smartsql.Model(name="nova-9", reference=True, base_url="http://127.0.0.1:9/v1")
    with pytest.raises(smartsql.UnknownPriceError) as caught:
        smartsql.connect(config=smartsql.Settings(), models=[unknown])
    for word in ("nova-9", "input_usd_per_mtok", "output_usd_per_mtok"):
        assert word in str(caught.value)


def test_an_endpoint_that_answers_with_html_is_said_so(con: Any, server: TestServer) -> None:
    server.script(*["html"] * 5000)
    with pytest.raises(smartsql.SmartSQLError, match="big"):
        con.execute("SELECT smart_llm(review) FROM reviews").fetchall()


def test_a_candidate_as_dear_as_the_reference_is_not_used_and_said_so(
    server: TestServer, tmp_path: Path
) -> None:
    big, small = models(server)
    dear = small.model_copy(update={"input_usd_per_mtok": 20.0, "output_usd_per_mtok": 20.0})
    with smartsql.connect(
        config=smartsql.Settings(), models=[big, dear], store=str(tmp_path / "a.sqlite")
    ) as con:
        con.execute("SELECT smart_llm('review ' || i) FROM range(100) t(i)").fetchall()
        assert {model for model, _ in server.billed_pairs()} == {"big"}
        assert "small" in " ".join(con.reports[-1].notes)


@pytest.mark.parametrize("n", [0, 1, 5, 12, 13])
def test_tables_with_few_rows(con: Any, n: int) -> None:
    query = f"SELECT review, smart_llm(review) FROM reviews WHERE id < {n} ORDER BY id"
    rows = con.execute(query).fetchall()
    assert len(rows) == n
    wrong = sum(answer != said("big", review) for review, answer in rows)
    assert wrong <= n // 10


def test_nulls_are_not_sent_and_not_counted(con: Any, server: TestServer) -> None:
    query = "SELECT smart_llm(CASE WHEN id % 2 = 0 THEN review END) FROM reviews"
    rows = con.execute(query).fetchall()
    assert sum(row[0] is None for row in rows) == 750
    assert con.reports[-1].rows == 750
    done = len(con.reports)
    assert (
        con.execute("SELECT smart_llm(NULL::VARCHAR) FROM reviews").fetchall() == [(None,)] * 1500
    )
    assert len(con.reports) == done


def test_rows_that_are_all_equal_are_one_call(con: Any, server: TestServer) -> None:
    rows = con.execute("SELECT smart_llm('same ' || (id * 0)) FROM reviews").fetchall()
    assert len(set(rows)) == 1
    assert server.multiplicity() == {("big", "same 0"): 1}


def test_a_cell_of_a_megabyte_is_sent_as_it_is(con: Any, server: TestServer) -> None:
    con.execute("SELECT smart_llm(repeat('x', 1000000) || id) FROM reviews WHERE id < 3").fetchall()
    assert {len(prompt) for _, prompt in server.billed_pairs()} == {1_000_001}
    assert set(server.multiplicity().values()) == {1}
