"""Statements whose bulk goes through batches, and what must hold of their money."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import smartsql
from smartsql.api import Connection
from tests.faults.scenes import said
from tests.faults.zygote import PRICES, models
from tests.gateway.server import TestServer

N = 60
BATCH: dict[str, Any] = {"mode": "batch", "batch_at_least": 20}
REVIEWS = f"CREATE TABLE r AS SELECT i AS id, 'review ' || i AS review FROM range({N}) t(i)"
CALL = "SELECT id, smart_llm(review) AS tone FROM r ORDER BY id"


def connected(
    server: TestServer, store: Path, settings: dict[str, Any] | None = None, **more: Any
) -> Connection:
    """A connection to a table of reviews, all of which the reference is to answer."""
    reference = models(server.base_url, **{**BATCH, **more})[:1]
    config = smartsql.Settings()
    con = smartsql.connect(config=config, models=reference, store=str(store), **(settings or {}))
    con.execute("SET threads = 1")
    con.execute(REVIEWS)
    return con


def asked(server: TestServer, store: Path, call: str = CALL, **more: Any) -> list[tuple[Any, ...]]:
    with connected(server, store, **more) as con:
        found: list[tuple[Any, ...]] = con.execute(call).fetchall()
        return found


def right() -> list[tuple[Any, ...]]:
    return [(i, said("big", f"review {i}")) for i in range(N)]


def query(store: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
        return db.execute(sql).fetchall()


def nothing_is_paid_twice(server: TestServer) -> None:
    both = server.multiplicity() + server.batches.multiplicity()
    assert max(both.values()) == 1


def the_ledger_is_even(server: TestServer, store: Path) -> None:
    """It has the server's bill to the cent, and nothing is held any more."""
    live = sum(sum(server.billed_tokens(model)) * usd / 1e6 for model, usd in PRICES.items())
    billed = live + server.batches.billed_usd(PRICES)
    ((spent,),) = query(store, "SELECT total(cost_usd) FROM attempts")
    assert spent == pytest.approx(billed, rel=1e-9)
    assert query(store, "SELECT count(*) FROM claims") == [(0,)]
    assert query(store, "SELECT count(*) FROM batch_calls") == [(0,)]
    assert query(store, "SELECT count(*) FROM spending WHERE owner <> ''") == [(0,)]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)
