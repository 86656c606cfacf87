"""Transactions, threads and engines around calls: what is paid for stays, and is paid for once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

import smartsql
from smartsql.reports.report import Report
from tests.gateway.server import TestServer
from tests.test_end_to_end import models, said

ROWS = 500
QUERY = f"SELECT i, smart_llm('review ' || i, 0.1, 0.95) AS a FROM range({ROWS}) t(i)"
WAIT_S = 60.0
TOLD = (
    *("statement", "seed", "strategy", "bound", "delta", "gamma", "rows", "pilot_rows"),
    *("audited_rows", "assigned_rows", "reference_rows", "rows_digest", "answers_digest"),
    "certificate",
)
ALL = "SELECT * FROM ({}) ORDER BY i"


@pytest.fixture
def server() -> Iterator[TestServer]:
    with TestServer(answer=said, latency_s=0.005) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "answers.sqlite")


def opened(server: TestServer, store: str, **more: Any) -> Any:
    config = smartsql.Settings(seed=5, max_in_flight=64)
    return smartsql.connect(config=config, models=models(server), store=store, **more)


def keeps_its_promise(rows: list[tuple[int, str]]) -> bool:
    wrong = sum(answer != said("big", f"review {i}") for i, answer in rows)
    return len(rows) == ROWS and wrong <= ROWS / 10


def same(first: Report, second: Report) -> bool:
    """Whether two reports tell the same of a statement, whoever paid."""
    return all(getattr(first, name) == getattr(second, name) for name in TOLD)


# -- transactions -----------------------------------------------------------------------------


def failing(con: Any) -> None:
    with pytest.raises(duckdb.Error):
        con.execute("SELECT error('no')").fetchall()
    con.rollback()


ENDS: dict[str, Callable[[Any], object]] = {
    "rollback()": lambda con: con.rollback(),
    "ROLLBACK": lambda con: con.execute("ROLLBACK"),
    "a failure": failing,
    "the end of the connection": lambda con: con.close(),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    "statement",
    ["{}", "CREATE TABLE made AS {}", "INSERT INTO kept {}", "INSERT INTO kept {} RETURNING i, a"],
)
def test_what_a_rolled_back_transaction_paid_for_stays_paid(
    statement: str, end: str, server: TestServer, store: str, tmp_path: Path
) -> None:
    base = str(tmp_path / "shop.duckdb")
    with opened(server, store, database=base) as con:
        con.execute("CREATE TABLE kept (i BIGINT, a VARCHAR)")
        con.begin()
        con.execute(statement.format(QUERY)).fetchall()
        bill = server.multiplicity()
        assert set(bill.values()) == {1}
        report = con.reports[-1]
        ENDS[end](con)
    with opened(server, store, database=base) as con:
        tables = con.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()
        assert tables == [("kept",)]
        assert con.execute("SELECT count(*) FROM kept").fetchall() == [(0,)]
        con.execute(statement.format(QUERY)).fetchall()
        again = con.reports[-1]
        rows = con.execute(ALL.format(QUERY)).fetchall()
    assert keeps_its_promise(rows)
    assert server.multiplicity() == bill
    assert again.spend_usd == 0
    assert same(again, report)


def test_a_rollback_while_a_result_is_read_keeps_what_it_has_paid_for(
    server: TestServer, store: str
) -> None:
    with opened(server, store) as con:
        con.begin()
        con.execute(QUERY)
        assert con.fetchone()
        con.rollback()
        bill = server.multiplicity()
        assert bill
        rows = con.execute(ALL.format(QUERY)).fetchall()
    assert keeps_its_promise(rows)
    assert server.multiplicity() == bill


def test_statements_of_one_transaction_have_each_a_promise_and_pay_once(
    server: TestServer, store: str
) -> None:
    with opened(server, store) as con:
        con.begin()
        for _ in range(3):
            con.execute(QUERY).fetchone()  # the rest is not read
        rows = con.execute(ALL.format(QUERY)).fetchall()
        con.rollback()
        reports = con.reports
    assert keeps_its_promise(rows)
    assert len(reports) == 4
    assert [report.spend_usd > 0 for report in reports] == [True, False, False, False]
    assert set(server.multiplicity().values()) == {1}


# -- threads ----------------------------------------------------------------------------------


def at_once(works: list[Callable[[], object]]) -> None:
    """Do all this at the same time, each on a thread; the first error is raised."""
    together = threading.Barrier(len(works), timeout=WAIT_S)
    errors: list[BaseException] = []

    def guarded(work: Callable[[], object]) -> None:
        try:
            together.wait()
            work()
        except BaseException as error:  # carried to the test
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


def reader(con: Any, results: list[list[tuple[int, str]]]) -> Callable[[], object]:
    return lambda: results.append(con.execute(ALL.format(QUERY)).fetchall())


def paid_once_and_told_alike(
    server: TestServer, results: list[list[tuple[int, str]]], reports: list[Report]
) -> None:
    assert keeps_its_promise(results[0])
    assert all(rows == results[0] for rows in results)
    assert set(server.multiplicity().values()) == {1}
    assert all(same(report, reports[0]) for report in reports)
    billed = sum(
        count * price / 1e6
        for name, price in (("big", 10), ("small", 0.3))
        for count in server.billed_tokens(name)
    )
    assert sum(report.spend_usd for report in reports) == pytest.approx(billed)


@pytest.mark.parametrize("n", [2, 4])
def test_cursors_that_run_the_same_statement_at_once_pay_once(
    n: int, server: TestServer, store: str
) -> None:
    results: list[list[tuple[int, str]]] = []
    with opened(server, store) as con:
        cursors = [con.cursor() for _ in range(n)]
        at_once([reader(cursor, results) for cursor in cursors])
        for cursor in cursors:
            cursor.close()
        reports = con.reports
    assert len(reports) == n
    paid_once_and_told_alike(server, results, reports)


def test_connections_with_engines_of_their_own_on_one_ledger_pay_once(
    server: TestServer, store: str
) -> None:
    results: list[list[tuple[int, str]]] = []
    with opened(server, store) as one, opened(server, store) as other:
        assert one.engine is not other.engine
        at_once([reader(con, results) for con in (one, other)])
        reports = [*one.reports, *other.reports]
    assert len(reports) == 2
    paid_once_and_told_alike(server, results, reports)


def test_threads_with_overlapping_statements_pay_once(server: TestServer, store: str) -> None:
    def work(con: Any, start: int) -> Callable[[], object]:
        query = QUERY.replace(f"range({ROWS})", f"range({start}, {start + 300})")
        return lambda: con.execute(query).fetchall()

    with opened(server, store) as con, opened(server, store) as other:
        at_once([work(c, s) for c, s in ((con.cursor(), 0), (con.cursor(), 100), (other, 200))])
    assert set(server.multiplicity().values()) == {1}


def test_one_of_two_threads_that_is_interrupted_leaves_the_other_to_go_on(
    server: TestServer, store: str
) -> None:
    over = threading.Event()
    server.latency_s = lambda call: 0.005 if over.is_set() else 0.3  # it cannot end before
    results: list[list[tuple[int, str]]] = []
    with opened(server, store) as con, opened(server, store) as other:

        def interrupted() -> None:
            with pytest.raises((smartsql.CancelledError, duckdb.InterruptException)):
                con.execute(QUERY).fetchall()

        def interrupt() -> None:
            deadline = time.monotonic() + WAIT_S
            while con._number not in con.engine._running.values():
                assert time.monotonic() < deadline
                time.sleep(0.001)
            con.interrupt()
            over.set()

        with con.cursor() as cursor:
            at_once([interrupted, interrupt, reader(cursor, results), reader(other, results)])
        rows = con.execute(ALL.format(QUERY)).fetchall()
    assert keeps_its_promise(rows)
    assert all(result == rows for result in results)
    # what the interrupted one had in flight may have been billed without being delivered
    delivered = {(b.model, b.prompt) for b in server.bill if b.delivered}
    assert delivered == server.billed_pairs()
