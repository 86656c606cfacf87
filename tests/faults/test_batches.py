"""The bulk of a statement through the batch API: paid once, lost never, as if it had been live.

Real HTTP, a ledger on disk, the server's own bill; processes are ended with SIGKILL.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import smartsql
from smartsql.asking import batch_ends, batching
from smartsql.cli import main
from smartsql.gateway import openai_batch
from smartsql.reports.verify import verify
from tests.faults.batched import (
    BATCH,
    CALL,
    REVIEWS,
    N,
    asked,
    connected,
    nothing_is_paid_twice,
    query,
    right,
    the_ledger_is_even,
    until,
)
from tests.faults.scenes import Scene, Zygotes, comparable, said
from tests.faults.steps import BATCH_STEPS
from tests.faults.zygote import PRICES, models
from tests.gateway.faults import Fault
from tests.gateway.server import TestServer

ROWS = 300


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


# --- as if it had been live ------------------------------------------------------------------


@pytest.fixture(scope="module")
def live(zygotes: Zygotes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with zygotes.one() as zygote, TestServer(answer=said) as server:
        scene = Scene(tmp_path_factory.mktemp("live"), server, zygote, ROWS)
        return in_any_mode(scene.finished(), server)


def in_any_mode(result: dict[str, Any], server: TestServer) -> dict[str, Any]:
    """What must not depend on how calls were made."""
    found = comparable(result, server.base_url)
    for model in found["report"]["models"]:
        del model["mean_cost"]  # less, by the part that went through batches
    return found


@pytest.mark.parametrize("step", [None, *BATCH_STEPS])
def test_killed_at_any_step_of_a_batch_the_next_process_goes_on_and_pays_once(
    step: str | None, live: dict[str, Any], zygotes: Zygotes, tmp_path: Path
) -> None:
    with zygotes.one() as zygote, TestServer(answer=said) as server:
        scene = Scene(tmp_path, server, zygote, ROWS, model=BATCH)
        if step is not None:
            scene.killed_at(step)
        result = in_any_mode(scene.finished(), server)
        assert result == live
        assert server.batches.bill
        nothing_is_paid_twice(server)
        the_ledger_is_even(server, scene.store)
        assert scene.lost() == {}
        if step is None:
            bill = len(server.bill), len(server.batches.bill)
            scene.finished()
            assert (len(server.bill), len(server.batches.bill)) == bill


def test_processes_with_the_same_statement_share_its_batch(
    live: dict[str, Any], zygotes: Zygotes, tmp_path: Path
) -> None:
    with zygotes.one() as one, zygotes.one() as other, TestServer(answer=said) as server:
        server.batches.hold.set()
        both = [
            Scene(tmp_path, server, zygote, ROWS, model=BATCH, name=str(k))
            for k, zygote in enumerate([one, other])
        ]
        for scene in both:
            scene.begin()
        until(lambda: len(server.batches.made) == 1)
        server.batches.hold.clear()
        assert [in_any_mode(scene.ended(), server) for scene in both] == [live, live]
        assert len(server.batches.made) == 1
        nothing_is_paid_twice(server)
        the_ledger_is_even(server, both[0].store)


def test_a_process_killed_while_it_waits_leaves_its_batch_to_another(
    live: dict[str, Any], zygotes: Zygotes, tmp_path: Path
) -> None:
    with zygotes.one() as zygote, TestServer(answer=said) as server:
        server.batches.hold.set()
        scene = Scene(tmp_path, server, zygote, ROWS, model=BATCH)
        waiting = lambda: any(b.looked for b in server.batches.made)  # noqa: E731
        scene.killed_when(waiting, 0.0)
        assert scene.kills == 1
        assert scene.query("SELECT state FROM batches") == [("open",)]
        server.batches.hold.clear()
        assert in_any_mode(scene.finished(), server) == live
        assert len(server.batches.made) == 1
        nothing_is_paid_twice(server)
        the_ledger_is_even(server, scene.store)


def test_the_bulk_costs_half_and_few_calls_go_live(server: TestServer, store: Path) -> None:
    with connected(server, store) as con:
        assert con.execute(CALL).fetchall() == right()
        report = con.reports[-1]
        assert all(check.holds for check in verify(report.to_dict(), con.engine.store))
    assert (len(server.bill), len(server.batches.bill)) == (0, N)
    assert report.spend_usd == pytest.approx(server.batches.billed_usd(PRICES), rel=1e-9)
    the_ledger_is_even(server, store)
    assert server.batches.made[0].window == "24h"
    # the prompts do not stay at the endpoint
    assert server.batches.made[0].file not in server.batches.files
    few = "SELECT smart_llm('another ' || i) FROM range(19) t(i)"
    asked(server, store, few)
    assert (len(server.bill), len(server.batches.made)) == (19, 1)


def test_discount_and_window_are_the_users(server: TestServer, store: Path) -> None:
    asked(server, store, batch_discount=0.25, batch_window="7d")
    assert server.batches.made[0].window == "7d"
    billed = server.batches.billed_usd(PRICES, 0.25)
    assert query(store, "SELECT total(cost_usd) FROM attempts")[0][0] == pytest.approx(billed)


# --- handed in, and taken later --------------------------------------------------------------


def test_a_statement_that_does_not_wait_says_what_is_under_way(
    server: TestServer, store: Path
) -> None:
    server.batches.hold.set()
    with connected(server, store, batch_wait_s=0) as con:
        with pytest.raises(smartsql.BatchPendingError, match="60 answers of the model 'big'") as e:
            con.execute(CALL)
        assert (e.value.model, e.value.calls, e.value.done) == ("big", N, 0)
        assert e.value.until == pytest.approx(time.time() + 86_400, abs=600)
        with pytest.raises(smartsql.BatchPendingError):
            con.execute(CALL)
    server.batches.hold.clear()
    assert asked(server, store, batch_wait_s=0) == right()
    assert len(server.batches.made) == 1
    nothing_is_paid_twice(server)
    the_ledger_is_even(server, store)


def test_a_batch_is_waited_for_where_the_model_is_live_by_now(
    server: TestServer, store: Path
) -> None:
    server.batches.hold.set()
    with pytest.raises(smartsql.BatchPendingError):
        asked(server, store, batch_wait_s=0)
    server.batches.hold.clear()
    with smartsql.connect(
        config=smartsql.Settings(), models=models(server.base_url)[:1], store=str(store)
    ) as con:
        con.execute(REVIEWS)
        assert con.execute(CALL).fetchall() == right()
    nothing_is_paid_twice(server)
    assert not server.bill


def test_a_batch_left_by_another_machine_is_taken_over_in_the_end(
    server: TestServer, store: Path
) -> None:
    """It had begun, and nobody was told; whether its maker still runs cannot be seen from here."""
    server.batches.faults["POST", "batches"] = [Fault("done_reset")]
    server.batches.faults["GET", "batches"] = [Fault("status", status=401)]
    server.batches.hold.set()
    with pytest.raises(smartsql.GatewayError):
        asked(server, store)
    with closing(sqlite3.connect(store)) as db:
        db.execute("UPDATE batches SET maker = 'elsewhere:1:x'")
        db.commit()
    with pytest.raises(smartsql.BatchPendingError):
        asked(server, store, batch_wait_s=0)
    assert query(store, "SELECT state FROM batches") == [("sent",)]
    with closing(sqlite3.connect(store)) as db:
        db.execute("UPDATE batches SET at = at - 8000")
        db.commit()
    server.batches.hold.clear()
    assert asked(server, store) == right()
    assert len(server.batches.made) == 1
    nothing_is_paid_twice(server)
    the_ledger_is_even(server, store)


@pytest.fixture
def program(
    server: TestServer, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Arguments of the command line."""
    monkeypatch.setenv("BATCH_KEY", "sk-canary-0123456789abcdef")
    server.api_key = "sk-canary-0123456789abcdef"
    config = tmp_path / "smartsql.toml"
    config.write_text(
        f'store = "{store}"\n[[models]]\nname = "big"\nreference = true\n'
        f'base_url = "{server.base_url}"\napi_key_env = "BATCH_KEY"\nmode = "batch"\n'
        "batch_at_least = 20\nbatch_wait_s = 0\ninput_usd_per_mtok = 10.0\n"
        "output_usd_per_mtok = 10.0\nparameters = { max_completion_tokens = 8 }\n"
    )
    return ["--config", str(config)]


def test_the_command_line_lists_and_collects(
    server: TestServer, store: Path, program: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["batches", *program]) == 0
    assert capsys.readouterr().err == "no batch is under way.\n"
    server.batches.hold.set()
    statement = [*program, "-csv", "-c", REVIEWS, "-c", CALL]
    assert main(statement) == 4
    assert "60 answers of the model 'big' are under way" in capsys.readouterr().err
    assert main(["batches", *program]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split()[:6] == ["number", "id", "model", "calls", "ready", "state"]
    assert line.split()[:6] == ["1", "batch_0", "big", "60", "0", "in_progress"]
    assert main(["batches", "--collect", *program]) == 0
    assert "in_progress" in capsys.readouterr().out
    server.batches.hold.clear()
    assert main(["batches", "--collect", *program]) == 0
    usd = server.batches.billed_usd(PRICES)
    assert f"batch 1: 60 of 60 answers taken, ${usd:.6g}" in capsys.readouterr().err
    the_ledger_is_even(server, store)
    assert main(statement) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [tuple(row.split(",")) for row in rows] == [(str(i), tone) for i, tone in right()]
    nothing_is_paid_twice(server)
    assert not server.bill
    assert main(["batches", "--all", *program]) == 0
    assert "collected" in capsys.readouterr().out


def test_a_batch_can_be_given_up(
    server: TestServer, store: Path, program: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    server.batches.hold.set()
    assert main([*program, "-c", REVIEWS, "-c", CALL]) == 4
    assert main(["batches", "--forget", "7", *program]) == 2
    assert main(["batches", "--forget", "1", *program]) == 0
    assert query(store, "SELECT count(*) FROM claims") == [(0,)]
    server.batches.hold.clear()
    server.batches.made.clear()
    server.api_key = None
    assert asked(server, store) == right()


def test_a_batch_under_way_outlives_the_rescue_of_its_ledger(
    server: TestServer, store: Path, tmp_path: Path
) -> None:
    server.batches.hold.set()
    with pytest.raises(smartsql.BatchPendingError):
        asked(server, store, batch_wait_s=0)
    rescued = tmp_path / "rescued.sqlite"
    assert main(["rescue", str(store), str(rescued)]) == 0
    server.batches.hold.clear()
    assert asked(server, rescued) == right()
    assert len(server.batches.made) == 1
    the_ledger_is_even(server, rescued)


def test_collecting_shows_no_key_and_fails_where_the_endpoint_refuses_it(
    server: TestServer,
    program: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.batches.hold.set()
    assert main([*program, "-c", REVIEWS, "-c", CALL]) == 4
    monkeypatch.setenv("BATCH_KEY", "sk-other-0123456789abcdef")
    assert main(["batches", "--collect", *program]) == 1
    shown = capsys.readouterr()
    assert "batch 1: HTTP 401" in shown.err
    assert "0123456789abcdef" not in shown.err + shown.out


def test_an_answer_of_another_type_is_asked_again_although_it_was_collected_blindly(
    server: TestServer, store: Path, program: list[str]
) -> None:
    server.answer = lambda model, prompt: "no idea" if re.search(r"w 7\b", prompt) else "good"
    call = "SELECT id, smart_classify(review, ['good', 'bad']) FROM r ORDER BY id"
    server.batches.hold.set()
    assert main([*program, "-c", REVIEWS, "-c", call]) == 4
    server.batches.hold.clear()
    assert main(["batches", "--collect", *program]) == 0
    odd = query(store, "SELECT count(*) FROM answers WHERE text = 'no idea'")
    server.api_key = None
    server.answer = lambda model, prompt: "good"
    assert [tone for _, tone in asked(server, store, call)] == ["good"] * N
    assert (odd, len(server.bill)) == ([(1,)], 1)
