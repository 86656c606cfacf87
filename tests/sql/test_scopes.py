"""Whose calls they are: of one statement, of one connection; and who may disturb them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import duckdb
import pytest

from smartsql.errors import QueryError
from smartsql.sql import session
from smartsql.sql.session import Connection, connect
from tests.sql.doubles import RecordingEngine, tone


def test_ctrl_c_cancels_the_engine_and_is_raised_as_it_is(
    con: Connection, engine: RecordingEngine
) -> None:
    def interrupted(_: str) -> str:
        raise KeyboardInterrupt

    engine.say = interrupted
    with pytest.raises(KeyboardInterrupt):
        con.execute("SELECT smart_llm('x')").fetchall()
    assert engine.cancelled == [con._number]


def test_interrupt_reaches_the_engine_first(con: Connection, engine: RecordingEngine) -> None:
    asked, stop = threading.Event(), threading.Event()

    def slow(_: str) -> str:
        asked.set()
        assert stop.wait(10)
        raise QueryError("cancelled")

    engine.say = slow

    def cancel(connection: int | None = None) -> None:
        cancelled.append(connection)
        stop.set()

    cancelled: list[int | None] = []
    engine.cancel = cancel  # type: ignore[method-assign]
    helper = threading.Thread(target=lambda: (asked.wait(10), con.interrupt()))
    helper.start()
    with pytest.raises((QueryError, duckdb.InterruptException)):
        con.execute("SELECT smart_llm('x')").fetchall()
    helper.join()
    assert cancelled == [con._number]


def test_calls_name_their_statement_and_their_connection(
    con: Connection, engine: RecordingEngine
) -> None:
    two = "SELECT smart_llm(r), smart_llm(r || '!') FROM u WHERE smart_llm(r) >= ''"
    relation = con.sql(two)
    for read in (
        lambda: con.execute(two).fetchall(),
        lambda: con.cursor().execute(two).fetchall(),
        relation.fetchall,
        relation.fetchall,
        con.begin,
        lambda: con.execute(two).fetchall(),
        lambda: con.execute(two).fetchall(),
    ):
        read()
    con.rollback()
    scopes = [(call.statement, call.connection) for call, _ in engine.asked]
    assert scopes[::2] == scopes[1::2]
    assert len({statement for statement, _ in scopes}) == 6
    connections = [connection for _, connection in scopes[::2]]
    assert connections.count(con._number) == 5 and None not in connections


def test_calls_of_a_bare_connection_name_their_statement(
    bare: duckdb.DuckDBPyConnection, engine: RecordingEngine
) -> None:
    two = "SELECT smart_llm(r), smart_llm(r || '!') FROM u"
    for connection in (bare, bare, bare.cursor(), bare.cursor()):
        connection.execute(two).fetchall()
    scopes = [(call.statement, call.connection) for call, _ in engine.asked]
    assert scopes[::2] == scopes[1::2]
    assert len({statement for statement, _ in scopes}) == 4
    assert [known is None for _, known in scopes[::2]] == [False, False, True, True]


@pytest.mark.parametrize(
    "disturb", [Connection.close, lambda c: c.preview("SELECT smart_llm('y')")]
)
def test_a_busy_connection_refuses_and_its_statement_goes_on(
    disturb: Callable[[Connection], object], con: Connection, engine: RecordingEngine
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slow(prompt: str) -> str:
        asked.set()
        assert go_on.wait(10)
        return tone(prompt)

    engine.say = slow
    answers: list[object] = []
    query = "SELECT smart_llm('x') UNION ALL SELECT smart_llm('x')"
    work = threading.Thread(target=lambda: answers.extend(con.execute(query).fetchall()))
    work.start()
    try:
        assert asked.wait(10)
        with pytest.raises(duckdb.OperationalError, match="busy"):
            disturb(con)
    finally:
        go_on.set()
        work.join()
    assert answers == [(tone("x"),)] * 2
    assert len({call.statement for call, _ in engine.asked}) == 1
    con.close()
    assert con._barrier.n_sets == 0


def test_a_statement_that_has_just_begun_refuses_other_threads_too(
    con: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    planned = con._planned

    def slow(query: session.Sql) -> session.Sql:
        begun.set()
        assert go_on.wait(10)
        return planned(query)

    monkeypatch.setattr(con, "_planned", slow)
    work = threading.Thread(target=con.execute, args=("SELECT smart_llm('x')",))
    work.start()
    try:
        assert begun.wait(10)
        for disturb in (con.close, lambda: con.execute("SELECT 1")):
            with pytest.raises(duckdb.OperationalError, match="busy"):
                disturb()
    finally:
        go_on.set()
        work.join()
    assert con.fetchall() == [(tone("x"),)]


def test_at_exit_one_session_that_cannot_be_closed_does_not_keep_others_open(
    engine: RecordingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    class Stubborn(Connection):
        def close(self) -> None:
            closed.append(self)
            raise OSError("disk full")

    mine = [Stubborn(other._con, other._barrier) for other in [connect(engine=engine)] * 2]
    monkeypatch.setattr(session, "_open", set(mine))
    with pytest.raises(OSError, match="disk full"):
        session._close_all()
    assert sorted(map(id, closed)) == sorted(map(id, mine))
