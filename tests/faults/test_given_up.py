"""Results that nobody reads on, with calls in flight: those end, and what came back is kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_cancel import (
    ROWS,
    TROUBLES,
    Stuck,
    best,
    opened,
    rerun_pays_for_nothing_again,
)
from tests.gateway.server import TestServer
from tests.test_end_to_end import said

FIRST = "SELECT smart_llm('quick ' || i) FROM range(3) t(i)"
REST = "SELECT smart_llm('review ' || i, 0.1, 0.95) FROM range({n}) t(i)"


def executed(con: Any, query: str) -> Callable[[], object]:
    con.execute(query)
    assert con.fetchone()
    return lambda: con.execute("SELECT 1").fetchall()


def executed_in_a_transaction(con: Any, query: str) -> Callable[[], object]:
    con.begin()
    return executed(con, query)


def closed(con: Any, query: str) -> Callable[[], object]:
    con.execute(query)
    assert con.fetchone()
    end: Callable[[], object] = con.close
    return end


def dropped(con: Any, query: str) -> Callable[[], object]:
    batches = [iter(con.sql(query).to_arrow_reader(2))]
    assert next(batches[0]).num_rows
    return batches.clear


@pytest.mark.parametrize("begin", [executed, executed_in_a_transaction, closed, dropped])
def test_a_result_that_is_given_up_ends_its_calls(
    begin: Callable[[Any, str], Callable[[], object]], tmp_path: Path
) -> None:
    def attempt(number: int) -> float:
        folder = tmp_path / str(number)
        folder.mkdir()
        with TestServer(answer=said) as server:
            stuck = Stuck(server, TROUBLES["hangs"], after=60)
            with opened(server, folder, alone=True) as con:
                end = begin(con, f"{FIRST} UNION ALL {REST.format(n=ROWS)}")
                stuck.wait()
                sent, start = len(server.calls), time.monotonic()
                end()
                took = time.monotonic() - start
            assert len(server.calls) <= sent + 256
            rerun_pays_for_nothing_again(server, folder, alone=True)
        return took

    best(attempt)
