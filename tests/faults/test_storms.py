"""Storms: endpoints that fail in all ways at once, for a while or for good, and rows that are bad.

The bound on what is sent, with the default patience: of each model at most two calls for each
prompt, 100 more, and what was refused for rate limits, which costs nothing; of one prompt at most
`max_attempts` calls that fail, beside such refusals.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import smartsql
from smartsql.errors import GatewayError
from smartsql.gateway import openai_api
from smartsql.gateway.congestion import FIRST_PLACES
from smartsql.gateway.openai_body import MOST_BYTES
from smartsql.gateway.retry import RetryPolicy
from smartsql.reports.bill import told
from smartsql.reports.verify import verify
from tests.gateway.asking import QUICK
from tests.gateway.faults import DELIVERED, UNANSWERED, USAGES, Call
from tests.gateway.server import Fault, TestServer, mixture, spawned
from tests.test_end_to_end import said

ROWS = 5000
PRICES = {"big": 10.0, "small": 0.3}
QUERY = "SELECT i, smart_llm('review ' || i, 0.1, 0.95) AS a FROM range({n}) t(i) ORDER BY i"
EXACT = "SELECT i, smart_llm('review ' || i, 0.0) AS a FROM range({n}) t(i) ORDER BY i"
TABLE = (
    "SELECT i, answer, source, cost_usd, error FROM smart_llm((SELECT i, 'review ' || i AS review "
    "FROM range({n}) t(i)), review, delta := {delta}) ORDER BY i"
)
ANSWERED = ("late", "slow_body")
COSTLY = ("billed_reset", "cut_body", "truncated", "html")
RARE = {"endless": 0.002, "hang": 0.001}


def storm(*kinds: str) -> dict[str, float]:
    """30 % faults of these kinds and of those that are rare as they take long."""
    return {kind: (0.3 - sum(RARE.values())) / len(kinds) for kind in kinds} | RARE


def opened(url: str, folder: Path, *, alone: bool = False, **settings: Any) -> Any:
    models = [
        smartsql.Model(
            name=name, base_url=url, reference=name == "big", input_usd_per_mtok=usd,
            output_usd_per_mtok=usd, timeout_s=3.0,
        )
        for name, usd in PRICES.items()
        if name == "big" or not alone
    ]  # fmt: skip
    store = str(folder / "answers.sqlite")
    settings = {"seed": 5, "max_in_flight": 64} | settings
    return smartsql.connect(config=smartsql.Settings(), models=models, store=store, **settings)


@pytest.fixture
def server() -> Iterator[TestServer]:
    with TestServer(answer=said) as running:
        yield running


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that lose their patience in seconds."""
    monkeypatch.setattr(openai_api, "RetryPolicy", lambda: QUICK)


def usd(tokens: tuple[int, int], model: str) -> float:
    return sum(tokens) * PRICES[model] / 1e6


def test_a_storm_of_all_faults_changes_no_answer_and_its_money_is_shown_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = RetryPolicy(base_s=0.05, longest_s=0.5)  # as usual, but for the pauses
    monkeypatch.setattr(openai_api, "RetryPolicy", lambda: policy)
    mix = ",".join(f"{kind}={share}" for kind, share in storm(*DELIVERED, *COSTLY).items())
    answers = ("--answers", "tests.test_end_to_end:said")
    with spawned(*answers) as calm, opened(calm.base_url, tmp_path / "calm") as con:
        expected = con.execute(QUERY.format(n=ROWS)).fetchall()
    with spawned(*answers, "--mix", mix, "--seed", "1") as server:
        with opened(server.base_url, tmp_path / "storm") as con:
            rows = con.execute(QUERY.format(n=ROWS)).fetchall()
            report = con.reports[-1]
            paid = con.execute("SELECT sum(cost_usd) FROM smart_ledger()").fetchone()
            checks = verify(report.to_dict(), con.engine.store)
        bill = server.summary()
    assert rows == expected
    assert [check for check in checks if not check.holds] == []
    # bounded: see above
    asked = sum(model.calls for model in report.models)
    assert bill["most_calls"] <= policy.max_attempts
    assert 1.2 * asked < bill["calls"] < 1.6 * asked < 2 * asked + policy.spare_retries
    assert sum(model.retries for model in report.models) == bill["calls"] - asked
    # to the cent, and far below it
    for model in report.models:
        theirs = bill["models"][model.name]
        delivered = usd(theirs["delivered"], model.name)
        assert model.cost_usd - model.failed_cost_usd == pytest.approx(delivered, abs=1e-9)
        lost = usd(theirs["billed"], model.name) - delivered
        assert 0 < lost <= model.failed_cost_usd
    assert paid == (pytest.approx(report.spend_usd, abs=1e-9),)
    assert "of it for failed calls)" in report.bill() and told([report])[0] == report.bill()
    assert "brought no answer" in dict(report.lines())["failed calls"]
    assert bill["endless_bytes"] < 4 * MOST_BYTES


@pytest.mark.usefixtures("_quick")
def test_whatever_an_endpoint_says_of_its_tokens_no_call_is_charged_too_little_or_absurdly(
    server: TestServer, tmp_path: Path
) -> None:
    server.faults = mixture(dict.fromkeys(USAGES, 0.3 / len(USAGES)), seed=3)
    with opened(server.base_url, tmp_path, alone=True) as con:
        rows = con.execute(EXACT.format(n=1000)).fetchall()
        report = con.reports[-1]
    assert rows == [(i, said("big", f"review {i}")) for i in range(1000)]
    assert len(server.calls) == 1000
    billed = usd(server.billed_tokens("big"), "big")
    assert billed < report.spend_usd < 5 * billed


@pytest.mark.usefixtures("_quick")
def test_rows_that_a_storm_leaves_without_an_answer_say_why_and_a_rerun_answers_them(
    server: TestServer, tmp_path: Path
) -> None:
    kinds = (*DELIVERED, *COSTLY, *UNANSWERED)
    server.faults = mixture(dict.fromkeys(kinds, 0.3 / len(kinds)), seed=2)
    query = TABLE.format(n=1500, delta=0.1)
    with opened(server.base_url, tmp_path, on_error="null") as con:
        rows = con.execute(query).fetchall()
        report = con.reports[-1]
        lost = {i: error for i, answer, source, _, error in rows if source == "error"}
        assert len(rows) == 1500 and 0 < len(lost) == report.error_rows
        assert all(answer is None for _, answer, source, _, _ in rows if source == "error")
        for error in lost.values():
            assert any(said in error for said in ("empty", "cut off", "refused"))
        # they count as different, whatever else is promised
        assert report.bound >= len(lost) / 1500
        assert f"{len(lost):,} rows have no answer" in report.promise()
        server.faults = None
        had = len(server.bill)
        again = con.execute(query).fetchall()
        assert [source for _, _, source, _, _ in again if source == "error"] == []
        # nothing that came back is asked again, but what the reference had failed to answer
        kept = {(b.model, b.prompt) for b in server.bill[:had] if b.kind in ("ok", *ANSWERED)}
        asked = {(b.model, b.prompt) for b in server.bill[had:]}
        assert asked and not asked & kept


BAD = {
    "400": "HTTP 400",
    "422": "HTTP 422",
    "empty": "its answer is empty",
    "blank": "its answer is empty",
    "cut": "cut off at the length limit",
    "refused": "refused to answer",
    "filtered": "refused to answer",
    "500": "HTTP 500",
    "truncated": "incomplete",
    "endless": "bytes",
    "html": "web page",
}


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("delta", [0.0, 0.1])
def test_a_bad_row_has_its_reason_beside_it_and_never_fails_the_statement(
    server: TestServer, tmp_path: Path, delta: float
) -> None:
    bad = {f"review {100 + k}": kind for k, kind in enumerate(BAD)}
    server.faults = lambda call: bad.get(call.prompt)
    with opened(server.base_url, tmp_path, on_error="null", alone=delta == 0.0) as con:
        rows = con.execute(TABLE.format(n=400, delta=delta)).fetchall()
        report = con.reports[-1]
    errors = {i: error for i, _, source, _, error in rows if source == "error"}
    assert set(errors) == {100 + k for k in range(len(bad))}
    for k, said_why in enumerate(BAD.values()):
        assert said_why in errors[100 + k]
    assert all(error is None for i, _, _, _, error in rows if i not in errors)
    assert report.error_rows == len(BAD)
    assert report.bound >= len(BAD) / 400


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("kind", ["503", "reset", "429", "hang"])
def test_an_outage_ends_in_a_clear_error_in_time_and_a_rerun_goes_on_from_there(
    server: TestServer, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(call: Call) -> str | None:
        return kind if call.serial >= 400 else None

    server.faults = fails
    with opened(server.base_url, tmp_path, alone=True) as con:
        began = time.monotonic()
        with pytest.raises(Exception, match="the reference model 'big'") as caught:
            con.execute(EXACT.format(n=1500)).fetchall()
        assert time.monotonic() - began < 20.0
        assert isinstance(caught.value, GatewayError) and caught.value.retryable
        assert "gave up" in str(caught.value) or "given up" in str(caught.value)
        assert "All paid answers are kept" in str(caught.value)
        kept = con.execute("SELECT count(*) FROM smart_ledger() WHERE status = 'ok'").fetchone()
        assert kept == (400,)
        assert len(server.calls) < 400 + 1000
        server.faults = None
        first = len(server.calls)
        rows = con.execute(EXACT.format(n=1500)).fetchall()
        assert rows == [(i, said("big", f"review {i}")) for i in range(1500)]
        assert len(server.calls) - first == 1500 - 400
        assert con.reports[-1].models[0].cached == 400


@pytest.mark.parametrize("kind", ["quota", "401"])
@pytest.mark.parametrize("on_error", ["error", "null"])
def test_a_wrong_key_and_a_quota_that_is_used_up_are_not_tried_again(
    server: TestServer, tmp_path: Path, kind: str, on_error: str
) -> None:
    server.faults = lambda call: kind
    with opened(server.base_url, tmp_path, alone=True, on_error=on_error, max_in_flight=256) as con:
        try:
            rows = con.execute(EXACT.format(n=3000)).fetchall()
        except GatewayError as error:
            assert on_error == "error" and not error.retryable
            assert "HTTP 4" in str(error)
        else:
            assert on_error == "null"
            assert [row for row in rows if row[1] is not None] == []
        assert max(server.calls_by_pair().values()) == 1
        # those that were in flight until the few refusals that it takes to be believed were read
        assert len(server.calls) <= 2 * FIRST_PLACES
        assert not server.bill


def test_answers_that_come_in_any_order_and_bodies_that_drip_reach_their_rows(
    server: TestServer, tmp_path: Path
) -> None:
    server.latency_s = lambda call: (call.serial * 7919 % 100) / 1000
    server.faults = lambda call: (
        Fault("slow_body", delay_s=0.2) if call.serial % 50 == 0 and not call.seen
        else "dripping" if call.serial == 77 else None
    )  # fmt: skip
    with opened(server.base_url, tmp_path, alone=True) as con:
        rows = con.execute(EXACT.format(n=600)).fetchall()
    assert rows == [(i, said("big", f"review {i}")) for i in range(600)]
    assert len(server.calls) == 601  # the body without an end was given up after timeout_s
