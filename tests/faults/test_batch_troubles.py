"""What goes wrong with batches: lines, whole batches, endpoints, interruptions, money."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import smartsql
from smartsql.asking import batch_ends, batching
from smartsql.gateway import openai_batch
from tests.faults.batched import (
    CALL,
    N,
    asked,
    connected,
    nothing_is_paid_twice,
    query,
    right,
    the_ledger_is_even,
    until,
)
from tests.faults.scenes import said
from tests.faults.zygote import PRICES, models
from tests.gateway.batches import Script
from tests.gateway.faults import Fault
from tests.gateway.server import TestServer


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_ends, "FIRST_POLL_S", 0.01)
    monkeypatch.setattr(batching, "PAUSE_S", 0.01)
    monkeypatch.setattr(openai_batch, "PAUSE_S", 0.01)


@pytest.fixture
def server() -> Iterator[TestServer]:
    with TestServer(answer=said) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "answers.sqlite"


# --- what goes wrong -------------------------------------------------------------------------

LINES = ("missing", "500", "429", "expired", "body", "broken", "twice", "ok")


def test_lines_that_failed_are_asked_again_and_cost_nothing(
    server: TestServer, store: Path
) -> None:
    server.batches.scripts = [Script(line=lambda place, _: LINES[min(place, 7)])]
    with connected(server, store) as con:
        assert con.execute(CALL).fetchall() == right()
        (model,) = con.reports[-1].models
        assert model.retries == 6
    assert len(server.bill) == 6
    assert len(server.batches.bill) == N - 6
    nothing_is_paid_twice(server)
    the_ledger_is_even(server, store)
    told = query(store, "SELECT DISTINCT error FROM failures ORDER BY 1")
    assert [error for (error,) in told] == [
        "HTTP 429 in a batch (server_error)",
        "HTTP 500 in a batch (server_error)",
        "its batch completed without an answer to it",
        "its batch has no answer to it",
        "not answered by its batch (batch_expired)",
    ]


@pytest.mark.parametrize("status", ["expired", "cancelled", "failed"])
def test_what_a_batch_leaves_goes_into_the_next_and_the_rest_is_asked_live(
    status: str, server: TestServer, store: Path
) -> None:
    """Half of the first batch and most of the second are not answered."""
    second = lambda place, _: "ok" if place < 25 else "missing"  # noqa: E731
    first = lambda place, _: "ok" if place % 2 else "expired"  # noqa: E731
    server.batches.scripts = [Script(status, first, looks=3), Script("expired", second)]
    assert asked(server, store) == right()
    assert [len(b.requests) for b in server.batches.made] == [N, N if status == "failed" else 30]
    assert len(server.bill) == (N - 25 if status == "failed" else 5)
    nothing_is_paid_twice(server)
    the_ledger_is_even(server, store)


def test_a_batch_that_the_endpoint_has_lost_is_asked_anew(server: TestServer, store: Path) -> None:
    server.batches.hold.set()
    with pytest.raises(smartsql.BatchPendingError):
        asked(server, store, batch_wait_s=0)
    server.batches.made.clear()
    server.batches.hold.clear()
    assert asked(server, store) == right()
    nothing_is_paid_twice(server)
    the_ledger_is_even(server, store)


def test_a_batch_that_began_although_nobody_was_told_is_found(
    server: TestServer, store: Path
) -> None:
    server.batches.faults["POST", "batches"] = [Fault("done_reset")]
    asked(server, store, "SELECT smart_llm('another ' || i) FROM range(25) t(i)")
    assert len(server.batches.made) == 1
    server.batches.faults["POST", "batches"] = [Fault("done_reset")]
    assert asked(server, store) == right()
    assert len(server.batches.made) == 2
    nothing_is_paid_twice(server)
    the_ledger_is_even(server, store)


def test_a_batch_of_which_nothing_is_known_never_begins_later(
    server: TestServer, store: Path
) -> None:
    """Without its file it cannot; the statement fails, and its rerun pays once."""
    server.batches.faults["POST", "batches"] = [Fault("reset")]
    with pytest.raises(smartsql.GatewayError, match="could not be handed in: connection lost"):
        asked(server, store)
    assert server.batches.files == {}
    assert query(store, "SELECT state FROM batches") == [("dropped",)]
    the_ledger_is_even(server, store)
    assert asked(server, store) == right()
    nothing_is_paid_twice(server)


def test_an_outage_while_it_is_handed_in_is_endured(server: TestServer, store: Path) -> None:
    busy = Fault("status", status=503, retry_after_s=0)
    server.batches.faults["POST", "files"] = [busy, Fault("reset")]
    server.batches.faults["POST", "batches"] = [busy]
    server.batches.faults["GET", "batches"] = [busy, Fault("reset")]
    server.batches.faults["GET", "files"] = [Fault("reset"), busy]
    assert asked(server, store) == right()
    assert len(server.batches.made) == 1
    the_ledger_is_even(server, store)


def test_an_endpoint_without_batches_is_told_with_the_way_out(
    server: TestServer, store: Path
) -> None:
    server.batches.faults["POST", "files"] = [Fault("status", status=404, message="no such path")]
    with pytest.raises(smartsql.GatewayError, match=r'HTTP 404.*set mode = "live"'):
        asked(server, store)
    the_ledger_is_even(server, store)
    assert not server.bill


def test_an_endpoint_that_says_nothing_for_long_ends_the_statement_and_not_the_batch(
    server: TestServer, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "OUTAGE_S", 0.1)
    server.batches.faults["GET", "batches"] = [Fault("reset")] * 1000
    with pytest.raises(smartsql.GatewayError, match="nothing is known of a batch of 60 calls"):
        asked(server, store)
    server.batches.faults.clear()
    assert asked(server, store) == right()
    assert len(server.batches.made) == 1
    nothing_is_paid_twice(server)


def test_an_interrupted_statement_ends_at_once_and_its_rerun_takes_the_batch(
    server: TestServer, store: Path
) -> None:
    server.batches.hold.set()
    with connected(server, store) as con:
        ended: list[float] = []

        def interrupt() -> None:
            until(lambda: any(b.looked for b in server.batches.made))
            ended.append(time.monotonic())
            con.interrupt()

        other = threading.Thread(target=interrupt)
        other.start()
        with pytest.raises(smartsql.CancelledError):
            con.execute(CALL)
        assert time.monotonic() - ended[0] < 5.0  # the batch itself would never end
        other.join()
    server.batches.hold.clear()
    assert asked(server, store) == right()
    assert len(server.batches.made) == 1
    nothing_is_paid_twice(server)
    the_ledger_is_even(server, store)


# --- money ------------------------------------------------------------------------------------


def test_a_budget_holds_for_batches(server: TestServer, store: Path) -> None:
    """What is not covered waits for the true price of what is, which is far below the worst."""
    worst = (len("review 00") + 64 + 8) * 10 / 1e6
    budget = 24.5 * worst / 2
    assert asked(server, store, settings={"budget_usd": budget}) == right()
    live = sum(server.billed_tokens("big")) * 10 / 1e6
    assert live + server.batches.billed_usd(PRICES) <= budget
    assert [len(b.requests) for b in server.batches.made] == [24, 21]
    assert len(server.bill) == 15
    nothing_is_paid_twice(server)
    the_ledger_is_even(server, store)


def test_where_the_budget_is_used_up_the_batches_are_kept(server: TestServer, store: Path) -> None:
    worst = (len("review 00") + 64 + 8) * 10 / 1e6
    budget = 20.5 * worst / 2
    server.batches.scripts = [Script(), Script()]
    server.answer = lambda model, prompt: "ja " * 12
    with pytest.raises(smartsql.BudgetError):
        asked(server, store, settings={"budget_usd": budget})
    billed = server.batches.billed_usd(PRICES) + sum(server.billed_tokens("big")) * 10 / 1e6
    assert budget / 4 < billed <= budget
    asked(server, store)
    nothing_is_paid_twice(server)
    the_ledger_is_even(server, store)


def test_a_batch_under_way_counts_against_the_session(server: TestServer, store: Path) -> None:
    worst = (len("review 00") + 64 + 8) * 10 / 1e6
    session = {"session_budget_usd": N * worst / 2 * 1.1}
    other = "SELECT smart_llm('another ' || i) FROM range(19) t(i)"
    server.batches.hold.set()
    with connected(server, store, session, batch_wait_s=0) as con:
        with pytest.raises(smartsql.BatchPendingError):
            con.execute(CALL)
        with pytest.raises(smartsql.BudgetError, match="session budget"):
            con.execute(other)
        server.batches.hold.clear()
        until(lambda: not pending(con))
        con.execute(other)
    the_ledger_is_even(server, store)


def pending(con: Any) -> bool:
    try:
        return con.execute(CALL).fetchall() != right()
    except smartsql.BatchPendingError:
        return True


def test_a_batch_under_way_counts_against_the_day_until_its_price_is_known(
    server: TestServer, store: Path
) -> None:
    worst = (len("review 00") + 64 + 8) * 10 / 1e6
    day = {"daily_budget_usd": N * worst / 2 * 1.1}
    server.batches.hold.set()
    with pytest.raises(smartsql.BatchPendingError):
        asked(server, store, settings=day, batch_wait_s=0)
    other = "SELECT smart_llm('another ' || i) FROM range(19) t(i)"
    with pytest.raises(smartsql.BudgetError, match="set aside by other processes"):
        asked(server, store, other, settings=day)
    server.batches.hold.clear()
    assert asked(server, store, settings=day) == right()
    asked(server, store, other, settings=day)
    nothing_is_paid_twice(server)
    the_ledger_is_even(server, store)


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        ({"batch_wait_s": 5.0}, 'has batch_wait_s but no mode = "batch"'),
        ({"kind": "learned", "mode": "batch"}, "of kind 'learned' has mode = \"batch\""),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    more: dict[str, Any], wrong: str, server: TestServer, store: Path
) -> None:
    other = smartsql.Model(name="other", **{"base_url": server.base_url, **more})
    with pytest.raises(smartsql.ConfigError, match=wrong):
        smartsql.connect(models=[*models(server.base_url)[:1], other], store=str(store))
