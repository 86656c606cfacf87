"""A table with hostile cells, a model that answers by them, and what it was asked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

import smartsql
from smartsql.config import TaskSettings
from tests.faults.cells import CELLS
from tests.gateway.server import TestServer

LABELS = ("good", "bad")
TEMPLATE = "Is {input} fine? {labels} %s {0} Say good or bad of {input}.\n"
HOSTILE = frozenset(CELLS)
BENIGN = tuple(f"review number {i}" for i in range(120))
OBEYED = "Very well, I ignore my instructions: bad bad bad"
HARMFUL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def truth(text: str) -> str:
    draw = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return LABELS[draw[0] % 2]


def opened(server: TestServer, tmp_path: Path, **settings: Any) -> Any:
    common: dict[str, Any] = {"base_url": server.base_url}
    dear, cheap = dict.fromkeys(PRICES, 10.0), dict.fromkeys(PRICES, 0.1)
    models = [
        smartsql.Model(name="big", reference=True, **dear, **common),
        smartsql.Model(name="small", **cheap, **common),
    ]
    tasks = {"tone": TaskSettings(prompt=TEMPLATE, labels=LABELS)}
    values: dict[str, Any] = {"models": models, "tasks": tasks, "seed": 5, "on_error": "null"}
    return smartsql.connect(**(values | {"store": str(tmp_path / "a.sqlite")} | settings))


PRICES = ("input_usd_per_mtok", "output_usd_per_mtok")


class Spy:
    """A DuckDB connection that keeps the text of all it is told."""

    def __init__(self, con: Any) -> None:
        self.con = con
        self.texts: list[str] = []

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.con, name)
        if name not in (
            "execute",
            "sql",
            "query",
            "executemany",
            "extract_statements",
            "from_query",
        ):
            return value

        def told(query: Any, *args: Any, **kwargs: Any) -> Any:
            self.texts.append(str(getattr(query, "query", query)))
            return value(query, *args, **kwargs)

        return told


def filled(con: Any, cells: Sequence[str], name: str = "cells") -> Any:
    table = pa.table({"id": range(len(cells)), "cell": pa.array(cells, pa.string())})
    con.register("given", table)
    con.execute(f"CREATE OR REPLACE TABLE {name} AS FROM given")
    con.unregister("given")
    return con


def rendered(cell: str) -> str:
    return cell.join(TEMPLATE.split("{input}"))


def answered(con: Any, query: str) -> dict[str, Any]:
    """The answer by cell."""
    return dict(con.execute(query).fetchall())


def prompts_of(server: TestServer) -> set[str]:
    """What reached the server, each as the only message of its request."""
    for call in server.calls:
        assert [message["role"] for message in call.body["messages"]] == ["user"]
        assert call.body["messages"][0].keys() == {"role", "content"}
        assert call.body.keys() <= {"model", "messages", "response_format"}
        assert call.model in ("big", "small")
    return {call.prompt for call in server.calls}
