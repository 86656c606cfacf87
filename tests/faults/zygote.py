"""A process that has imported everything and forks one child for each statement it is told of.

It reads a JSON object a line: `store`, `url`, `out`, `rows`, and `step` (see `steps.py`) or null.
It answers with the child's number, and with how the child ended. Forks happen before any thread.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import sys
import traceback
from pathlib import Path
from typing import Any

import smartsql
from tests.faults.steps import armed

HEAVY = ("aiohttp", "highspy", "httpx2", "openai", "openai.types.chat", "scipy.stats")
NOT_NEEDED = (
    "smartsql.__main__",
    "smartsql.cli",
    "smartsql.demo",
    "smartsql.gateway.distillation",
    "smartsql.gateway.kept",
    "smartsql.gateway.learned",
    "smartsql.gateway.llama",
    "smartsql.replay",
)
"""Modules of ours that these statements do not use."""
ROWS = (
    "CREATE TABLE reviews AS SELECT i AS id, 'review ' || (i % ({rows} * 4 // 5)) AS review "
    "FROM range({rows}) t(i)"
)
STATEMENT = (
    "SELECT id, answer, model, error, source FROM smart_llm(reviews, review, delta := 0.1) "
    "ORDER BY id"
)
IN_FLIGHT = 8
PRICES = {"big": 10.0, "small": 0.4, "tiny": 0.1}
"""USD per million tokens, in and out."""


def models(url: str, **more: Any) -> list[smartsql.Model]:
    return [
        smartsql.Model(
            name=name,
            base_url=url,
            reference=name == "big",
            input_usd_per_mtok=usd,
            output_usd_per_mtok=usd,
            parameters={"max_completion_tokens": 8},
            **more,
        )
        for name, usd in PRICES.items()
    ]


def run(job: dict[str, Any]) -> dict[str, Any]:
    settings = {"seed": 7, "max_in_flight": IN_FLIGHT, **job.get("settings", {})}
    with smartsql.connect(
        config=smartsql.Settings(),
        models=models(job["url"], **job.get("model", {})),
        store=job["store"],
        **settings,
    ) as con:
        con.execute("SET threads = 1")
        con.execute(ROWS.format(rows=job["rows"]))
        rows = con.execute(STATEMENT).fetchall()
        return {"rows": rows, "report": con.reports[-1].to_dict()}


def child(job: dict[str, Any]) -> None:
    code = 1
    try:
        with armed(job.get("step")):
            result = json.dumps(run(job))
        Path(job["out"]).write_text(result)
        code = 0
    except BaseException:
        Path(job["out"] + ".error").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def main() -> None:
    for module in pkgutil.walk_packages(smartsql.__path__, "smartsql."):
        if not module.name.startswith(NOT_NEEDED):
            importlib.import_module(module.name)
    for name in HEAVY:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            child(job)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    os._exit(0)  # nothing is open, and extensions complain of a fork's end


if __name__ == "__main__":
    main()
