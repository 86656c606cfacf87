"""Scenes for tests of kills: a server with its own bill, a ledger, and processes to be ended."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smartsql.asking.exchange import WINDOWS
from smartsql.population import digest
from tests.faults.zygote import IN_FLIGHT, PRICES
from tests.gateway.server import TestServer

ROOT = Path(__file__).resolve().parents[2]
LOST_PER_KILL = WINDOWS * len(PRICES) * IN_FLIGHT
"""Calls that were handed over and not recorded: in flight, or answered while others were kept."""


def draw(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def said(model: str, prompt: str) -> str:
    """The reference flips a coin for each prompt; 3 and 12 of 100 times others differ."""
    wrong = {"big": 0, "small": 3, "tiny": 12}[model]
    flip = draw(model + prompt) % 100 < wrong
    return ("positive", "negative")[draw(prompt) % 2 ^ flip]


class Zygote:
    """A process that forks children which run statements; see `zygote.py`."""

    def __init__(self) -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            cwd=ROOT,
        )
        assert self._read() == "ready"

    def begin(self, **job: Any) -> int:
        """Fork a child that runs a statement; its number."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._read())

    def ended(self) -> int:
        """Wait for the child; its exit code."""
        return int(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Zygotes:
    """Zygotes to be taken and given back; made when none is free. Safe for threads."""

    def __init__(self) -> None:
        self._made: list[Zygote] = []
        self._free: queue.SimpleQueue[Zygote] = queue.SimpleQueue()

    @contextmanager
    def one(self) -> Iterator[Zygote]:
        try:
            taken = self._free.get_nowait()
        except queue.Empty:
            taken = Zygote()
            self._made.append(taken)
        try:
            yield taken
        finally:
            self._free.put(taken)

    def close(self) -> None:
        for zygote in self._made:
            zygote.close()


@dataclass
class Scene:
    """One ledger and one server, and processes one after another; `kills` counts those that hit.

    Scenes of several processes at once have one folder and a name each.
    """

    folder: Path
    server: TestServer
    zygote: Zygote
    rows: int
    kills: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    runs: int = 0
    name: str = ""

    @property
    def store(self) -> Path:
        return self.folder / "answers.sqlite"

    def begin(self, step: str | None = None) -> int:
        self.runs += 1
        return self.zygote.begin(
            store=str(self.store),
            url=self.server.base_url,
            out=str(self.out),
            rows=self.rows,
            step=step,
            settings=self.settings,
            model=self.model,
        )

    def said(self) -> str:
        """With which error the last process ended, if with any."""
        error = Path(f"{self.out}.error")
        return error.read_text() if error.exists() else ""

    @property
    def out(self) -> Path:
        return self.folder / f"result{self.name}-{self.runs}.json"

    def finished(self) -> dict[str, Any]:
        """Run the statement to its end; its rows and its report."""
        self.begin()
        return self.ended()

    def ended(self) -> dict[str, Any]:
        """Wait for the end of the statement; its rows and its report."""
        assert self.zygote.ended() == 0, self.said()
        return dict(json.loads(self.out.read_text()))

    def killed_at(self, step: str) -> None:
        """Run the statement until it kills itself at a step."""
        self.begin(step)
        code = self.zygote.ended()
        assert code == -signal.SIGKILL, f"{step!r} was not reached: {code} {self.said()}"
        self.kills += 1

    def killed_when(self, when: Callable[[], bool], delay_s: float) -> None:
        """Run the statement and kill it when something holds, and some time later."""
        pid = self.begin()
        ended = threading.Event()
        code: list[int] = []
        waiting = threading.Thread(target=lambda: (code.append(self.zygote.ended()), ended.set()))
        waiting.start()
        while not ended.is_set() and not when():
            ended.wait(0.001)
        ended.wait(delay_s)
        with suppress(ProcessLookupError):
            if not ended.is_set():
                os.kill(pid, signal.SIGKILL)
        waiting.join(60)
        assert code and code[0] in (0, -signal.SIGKILL), code
        self.kills += code[0] != 0

    # --- what the ledger says ----------------------------------------------------------------

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        if not self.store.exists():
            return []
        with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)) as db:
            return db.execute(sql).fetchall()

    def n_recorded(self) -> int:
        with suppress(sqlite3.OperationalError):  # it is being made
            found = self.query("SELECT count(*) FROM answers")
            return int(found[0][0]) if found else 0
        return 0

    def recorded(self) -> set[tuple[str, bytes]]:
        joined = "answers a JOIN identities i ON i.id = a.identity"
        return set(self.query(f"SELECT model, prompt FROM {joined}"))

    def lost(self) -> Counter[tuple[str, bytes]]:
        joined = "failures f JOIN identities i ON i.id = f.identity"
        return Counter(self.query(f"SELECT model, prompt FROM {joined} WHERE status = 'lost'"))

    def money(self) -> tuple[float, float]:
        """What was certainly spent, and what was possibly spent besides."""
        (found,) = self.query(
            "SELECT total(cost_usd) FILTER (WHERE status <> 'lost'), "
            "total(cost_usd) FILTER (WHERE status = 'lost') FROM attempts"
        )
        return found

    # --- what the server says ----------------------------------------------------------------

    def billed(self) -> Counter[tuple[str, bytes]]:
        found: Counter[tuple[str, bytes]] = Counter()
        for (model, prompt), count in self.server.multiplicity().items():
            found[model, digest(prompt)] += count
        return found

    def billed_usd(self) -> float:
        return sum(
            sum(self.server.billed_tokens(model)) * usd / 1e6 for model, usd in PRICES.items()
        )


def settled(server: TestServer) -> None:
    """Wait until nothing is in flight at the server: what was sent before a kill is billed."""
    deadline = time.monotonic() + 10
    while server.in_flight and time.monotonic() < deadline:
        time.sleep(0.002)
    assert not server.in_flight


# --- comparing with an undisturbed run -------------------------------------------------------

TIMES = {"seconds", "decide_s", "started_at"}
PLACES = {"run", "store", "statement"}
PAID_WHEN = {"spend", "spend_usd"}
OF_A_RUN = {
    "calls", "cached", "retries", "prompt_tokens", "completion_tokens", "cost_usd",
    "failed_cost_usd", "seconds", "served_by", "last_error",
}  # fmt: skip


def comparable(result: dict[str, Any], url: str) -> dict[str, Any]:
    """What must be equal: all but times, places, and in which run something was paid."""
    report = {k: v for k, v in result["report"].items() if k not in TIMES | PLACES | PAID_WHEN}
    report["notes"] = [note for note in report["notes"] if "status 'lost'" not in note]
    report["models"] = [
        {k: v for k, v in model.items() if k not in OF_A_RUN}
        | {
            "asked": model["calls"] + model["cached"],
            "identity": model["identity"].replace(url, ""),
        }
        for model in report["models"]
    ]
    rows = [(id_, answer, model, error) for id_, answer, model, error, _ in result["rows"]]
    return {"rows": rows, "report": report}
