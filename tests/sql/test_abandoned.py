"""Results that were read in part, and what comes after them on the connection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import duckdb
import pyarrow as pa
import pytest

from smartsql.errors import CancelledError
from smartsql.sql import session
from smartsql.sql.session import Connection, connect
from tests.sql.doubles import RecordingEngine, tone

WAIT_S = 30
LATE = 8
QUICK = "SELECT smart_llm('quick ' || i) AS a FROM range(3) q(i)"
"""Its rows are there while the others are held."""


class Held:
    """A function in SQL that keeps DuckDB's own threads until they are let go.

    The thread that runs the statement only waits until another one is kept, so that it comes
    back with the first rows.
    """

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.kept = threading.Event()
        self._lock = threading.Lock()
        self.inside = 0
        self.mine = threading.get_ident()

    def hold(self, values: pa.ChunkedArray) -> pa.Array:
        if threading.get_ident() == self.mine:
            assert self.kept.wait(WAIT_S)
            return values.combine_chunks()
        with self._lock:
            self.inside += 1
        self.kept.set()
        assert self.go_on.wait(WAIT_S)
        with self._lock:
            self.inside -= 1
        return values.combine_chunks()


@pytest.fixture
def held(con: Connection) -> Iterator[Held]:
    """The function `hold`, on a connection with threads of its own."""
    holding = Held()
    con.execute("SET threads = 4")
    con.create_function("hold", holding.hold, ["BIGINT"], "BIGINT", type="arrow")
    yield holding
    holding.go_on.set()


def late(name: str = "late") -> str:
    """Branches whose rows come after those of `QUICK`."""
    each = "SELECT smart_llm('{name} {k} ' || hold(i), site := {k}) FROM range(3) q(i)"
    return "".join(f" UNION ALL {each.format(name=name, k=k)}" for k in range(100, 100 + LATE))


def statements(engine: RecordingEngine, word: str) -> set[int | None]:
    """Numbers of the statements that asked about prompts with this word."""
    return {c.statement for c, asked in engine.asked if any(word in text for text in asked)}


def at_planning(con: Connection, monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Do something when the next statement has begun and DuckDB does not know it yet."""
    planned = con._planned

    def hooked(query: session.Sql) -> session.Sql:
        do()
        return planned(query)

    monkeypatch.setattr(con, "_planned", hooked)


def test_late_rows_of_an_abandoned_statement_are_no_part_of_the_next_one(
    con: Connection, engine: RecordingEngine, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def say(prompt: str) -> str:
        if "late" in prompt and held.go_on.is_set():
            asked.set()
        return tone(prompt)

    def let_go() -> None:
        was_running = held.inside > 0
        held.go_on.set()
        if was_running:  # what it asks now is asked after the next statement has begun
            assert asked.wait(WAIT_S)

    def cancel(connection: int | None = None) -> None:
        held.go_on.set()

    engine.say = say
    engine.cancel = cancel  # type: ignore[method-assign]
    con.begin()
    con.execute(QUICK + late())
    con.fetchone()
    assert held.kept.wait(WAIT_S)
    at_planning(con, monkeypatch, let_go)
    rows = con.execute("SELECT smart_llm('next ' || i) FROM range(3) q(i)").fetchall()
    assert rows == [(tone(f"next {i}"),) for i in range(3)]
    assert held.inside == 0
    assert len(statements(engine, "next")) == 1
    assert statements(engine, "late") <= statements(engine, "quick")
    assert statements(engine, "next").isdisjoint(statements(engine, "quick"))


def test_rows_that_were_left_behind_are_no_part_of_the_same_statement_run_again(
    con: Connection, engine: RecordingEngine, held: Held
) -> None:
    engine.cancel = lambda connection=None: held.go_on.set()  # type: ignore[method-assign]
    query = QUICK + late()
    con.begin()
    con.execute(query)
    con.fetchone()
    assert held.kept.wait(WAIT_S)
    rows = con.execute(query).fetchall()
    assert len(rows) == 3 * (1 + LATE)
    again = max(statements(engine, "quick"), key=lambda number: number or 0)
    mine = [asked for call, asked in engine.asked if call.statement == again]
    assert sorted(len(asked) for asked in mine) == [3] * (1 + LATE)


class Calling:
    """An engine whose late calls last until they are cancelled, or let go."""

    def __init__(self, engine: RecordingEngine) -> None:
        self.begun, self.ended = threading.Event(), threading.Event()
        self.cancelled = False
        engine.say = self.say
        engine.cancel = self.cancel  # type: ignore[method-assign]

    def say(self, prompt: str) -> str:
        if "late" in prompt:
            self.begun.set()
            assert self.ended.wait(WAIT_S)
            if self.cancelled:
                raise CancelledError("cancelled")
        return tone(prompt)

    def cancel(self, connection: int | None = None) -> None:
        self.cancelled = True
        self.ended.set()


SLOW = "SELECT smart_llm('late ' || i) FROM range(3) q(i)"


@pytest.mark.parametrize("end", [lambda c: c.execute("SELECT 1"), lambda c: c.close()])
def test_nobody_waits_for_the_calls_of_an_abandoned_statement(
    con: Connection, engine: RecordingEngine, end: Callable[[Connection], object]
) -> None:
    calling = Calling(engine)
    con.execute(f"{QUICK} UNION ALL {SLOW}")
    con.fetchone()
    assert calling.begun.wait(WAIT_S)
    end(con)
    assert calling.cancelled


def test_nobody_waits_for_the_calls_of_a_reader_that_is_dropped(
    con: Connection, engine: RecordingEngine
) -> None:
    calling = Calling(engine)
    reader = con.sql(f"{QUICK} UNION ALL {SLOW}").to_arrow_reader(2)
    assert reader.read_next_batch().num_rows
    assert calling.begun.wait(WAIT_S)
    with pytest.raises(duckdb.ResourceInUseException):  # it is still read, so nothing is disturbed
        con.execute("SELECT 1")
    assert not calling.cancelled
    del reader
    assert calling.cancelled
    assert con.execute("SELECT smart_llm('x')").fetchall() == [(tone("x"),)]


def test_calls_of_a_statement_that_changes_something_go_on(
    con: Connection, engine: RecordingEngine
) -> None:
    con.execute("CREATE SEQUENCE numbers")
    calling = Calling(engine)
    con.begin()
    con.execute(f"SELECT nextval('numbers'), a FROM ({QUICK} UNION ALL {SLOW})")
    con.fetchone()
    helper = threading.Thread(target=lambda: (calling.begun.wait(WAIT_S), calling.ended.set()))
    helper.start()
    assert con.execute("SELECT currval('numbers')").fetchall() == [(6,)]
    helper.join()
    con.commit()
    assert not calling.cancelled


def test_a_relation_that_is_made_while_a_result_is_read_leaves_the_result_as_it_is(
    con: Connection, engine: RecordingEngine, held: Held
) -> None:
    con.begin()
    con.execute(QUICK + late())
    con.fetchone()
    assert held.kept.wait(WAIT_S)
    relation = con.sql("SELECT smart_llm('next')")
    held.go_on.set()
    assert len(con.fetchall()) == 3 * (1 + LATE) - 1
    assert statements(engine, "late") == statements(engine, "quick")
    assert relation.fetchall() == [(tone("next"),)]


def test_a_statement_that_cannot_be_parsed_leaves_the_result_as_it_is(con: Connection) -> None:
    con.execute(QUICK)
    con.fetchone()
    with pytest.raises(duckdb.ParserException):
        con.execute("SELEC 1")
    assert len(con.fetchall()) == 2


def test_a_statement_after_a_failed_one_still_hears_of_the_failed_transaction(
    con: Connection,
) -> None:
    con.begin()
    con.execute(QUICK)
    with pytest.raises(duckdb.Error):
        con.execute("SELECT error('no')").fetchall()
    with pytest.raises(duckdb.TransactionException, match="aborted"):
        con.execute("SELECT 1")
    con.execute("ROLLBACK")
    assert con.execute(QUICK).fetchall() == [(tone(f"quick {i}"),) for i in range(3)]


def test_results_that_are_read_to_their_end_leave_nothing_to_end(con: Connection) -> None:
    for read in (con.fetchall, con.fetchnumpy, con.complete):
        con.execute(QUICK)
        assert con._unread.may_run
        read()
        assert not con._unread.may_run
    con.execute(QUICK)
    while con.fetchone() is not None:
        assert con._unread.may_run
    assert not con._unread.may_run
    with connect(engine=con.engine) as plain:
        plain.execute("SELECT 1")
        assert not plain._unread.may_run
