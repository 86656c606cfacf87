"""Ctrl-C and `interrupt()`, wherever DuckDB and its threads are."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

import duckdb
import pytest

from smartsql.errors import CancelledError
from smartsql.sql import session
from smartsql.sql.session import Connection
from tests.sql.doubles import RecordingEngine, tone

WAIT_S = 30
QUERY = " UNION ALL ".join(
    f"SELECT smart_llm('{k} ' || i, site := {k}) FROM range(3) t(i)" for k in range(1, 6)
)
RUNS: dict[str, Callable[[Connection], object]] = {
    "execute": lambda con: con.execute(QUERY).fetchall(),
    "create": lambda con: con.execute(f"CREATE TABLE made AS {QUERY}"),
    "relation": lambda con: con.sql(QUERY).fetchall(),
    "reader": lambda con: con.sql(QUERY).to_arrow_reader(1).read_all(),
}


class Waiting:
    """An engine whose calls last until they are cancelled, or let go."""

    def __init__(self, engine: RecordingEngine) -> None:
        self.begun, self.ended = threading.Event(), threading.Event()
        self.cancelled = False
        engine.say = self.say
        engine.cancel = self.cancel  # type: ignore[method-assign]

    def say(self, prompt: str) -> str:
        self.begun.set()
        assert self.ended.wait(WAIT_S)
        if self.cancelled:
            raise CancelledError("cancelled")
        return tone(prompt)

    def cancel(self, connection: int | None = None) -> None:
        self.cancelled = True
        self.ended.set()


@pytest.fixture
def waiting(con: Connection, engine: RecordingEngine) -> Waiting:
    con.execute("SET threads = 4")
    con.execute("SELECT smart_llm('once')").fetchall()  # relations are told of calls from now on
    return Waiting(engine)


def press(waiting: Waiting) -> threading.Thread:
    """Ctrl-C as soon as the engine is asked."""

    def pressing() -> None:
        if waiting.begun.wait(WAIT_S):
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=pressing)
    thread.start()
    return thread


@pytest.mark.parametrize("run", RUNS)
def test_ctrl_c_ends_calls_whichever_thread_waits_for_them(
    run: str, con: Connection, waiting: Waiting, engine: RecordingEngine
) -> None:
    thread = press(waiting)
    with pytest.raises(KeyboardInterrupt):
        RUNS[run](con)
    thread.join()
    assert waiting.cancelled
    engine.say = tone
    assert con.execute("SELECT smart_llm('x')").fetchall() == [(tone("x"),)]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_program_that_takes_ctrl_c_for_something_else_is_left_to_it(
    con: Connection, waiting: Waiting
) -> None:
    heard: list[int] = []

    def own(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        waiting.ended.set()

    signal.signal(signal.SIGINT, own)
    try:
        thread = press(waiting)
        rows = con.execute(QUERY).fetchall()
        thread.join()
        assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert heard == [signal.SIGINT]
    assert len(rows) == 15
    assert not waiting.cancelled


def test_an_interrupt_while_a_statement_is_planned_is_not_lost(
    con: Connection, engine: RecordingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = con._planned

    def interrupted(query: session.Sql) -> session.Sql:
        other = threading.Thread(target=con.interrupt)
        other.start()
        other.join()
        return planned(query)

    with monkeypatch.context() as patch:
        patch.setattr(con, "_planned", interrupted)
        with pytest.raises((CancelledError, duckdb.InterruptException)):
            con.execute(QUERY).fetchall()
    assert engine.asked == []
    assert len(con.execute(QUERY).fetchall()) == 15


def test_an_interrupt_while_rows_are_collected_is_not_lost(
    con: Connection, engine: RecordingEngine
) -> None:
    """It comes when there is nothing yet that the engine could cancel."""
    con.create_function("stop", lambda x: (con.interrupt(), x)[1], ["BIGINT"], "BIGINT")
    with pytest.raises((CancelledError, duckdb.InterruptException)):
        con.execute("SELECT smart_llm('p' || stop(i)) FROM range(3) t(i)").fetchall()
    assert engine.asked == []
    assert con.execute("SELECT smart_llm('x')").fetchall() == [(tone("x"),)]


def test_an_interrupt_of_an_idle_connection_is_for_nobody(
    con: Connection, engine: RecordingEngine
) -> None:
    con.execute(QUERY).fetchall()
    con.interrupt()
    assert len(con.execute(QUERY).fetchall()) == 15
    con.interrupt()
    assert len(con.sql(QUERY).fetchall()) == 15
