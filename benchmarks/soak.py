"""Hours in minutes: faults, kills, Ctrl-C and several processes on one ledger, and both bills.

A server that keeps its own bill answers three models; 30 % of its answers are faults of all kinds
that a rerun survives. Processes run the same statement on the same ledger, again and again over new
prompts, and are ended at random moments by SIGKILL and by Ctrl-C; then each runs it to its end.
After each round, and at the end, the server's bill is compared with the ledger:

* delivered: each answer that is in the ledger costs there what the server billed, to the cent;
* not recorded: what the server billed besides (answers that were on their way to a process when it
  was ended, and calls whose answer never arrived whole) is an attempt in the ledger, which says
  that it may have cost at least that much;
* no pair of model and prompt is billed twice but where such an attempt says why; what is in the
  ledger is not asked again; every row is answered; all processes agree; every report verifies.

    python -m benchmarks.soak [--minutes 30] [--processes 2] [--rows 300] [--seed 1]

Exits with 1 where something does not match.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from smartsql.gateway import DELIVERED as ANSWERS
from smartsql.ledger import Ledger
from smartsql.population import digest
from smartsql.reports.verify import verify
from tests.faults.scenes import Scene, Zygote, comparable, said, settled
from tests.faults.zygote import PRICES
from tests.gateway.faults import DELIVERED, LOSING
from tests.gateway.server import TestServer, mixture

FAULTS = 0.3
KINDS = (*DELIVERED, *(kind for kind in LOSING if kind != "endless"))
RARE = {"endless": 0.002}
"""Faults that cost the client much work."""
LATENCY_S = 0.005
FIRST_LIFE_S = 8.0
"""How long a statement may take before any was timed."""
STUCK_S = 300.0
EXACT = 1e-9
"""USD; far below a cent, as a call costs some thousandths of one."""
Pair = tuple[str, bytes]


@dataclass
class Account:
    """What one side says: USD by (model, prompt)."""

    delivered: dict[Pair, list[float]] = field(default_factory=lambda: defaultdict(list))
    failed: dict[Pair, list[float]] = field(default_factory=lambda: defaultdict(list))
    lost: dict[Pair, list[float]] = field(default_factory=lambda: defaultdict(list))

    def usd(self, part: str) -> float:
        return math.fsum(cost for costs in getattr(self, part).values() for cost in costs)

    def calls(self, part: str) -> int:
        return sum(len(costs) for costs in getattr(self, part).values())


@dataclass
class Tally:
    """What was done to the processes, and what did not match."""

    rounds: int = 0
    statements: int = 0
    rows: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def check(self, holds: bool, what: str) -> None:
        if not holds and what not in self.wrong:
            self.wrong.append(what)
            print(f"DOES NOT MATCH: {what}", flush=True)


# --- both bills ------------------------------------------------------------------------------


def of_server(server: TestServer) -> Account:
    """Answers that were handed over whole, and what was billed besides."""
    account, digests = Account(), {}
    for line in list(server.bill):
        if line.prompt not in digests:
            digests[line.prompt] = digest(line.prompt)
        usd = (line.prompt_tokens + line.completion_tokens) * PRICES[line.model] / 1e6
        part = account.delivered if line.delivered else account.failed
        part[line.model, digests[line.prompt]].append(usd)
    return account


def of_ledger(store: Path) -> Account:
    """Answers, attempts that may have been billed, and calls of which nobody knows what came."""
    account = Account()
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
        attempts = db.execute(
            "SELECT model, prompt, status, cost_usd FROM attempts "
            "JOIN identities ON identities.id = attempts.identity WHERE cost_usd > 0"
        )
        for model, prompt, status, usd in attempts:
            part = "delivered" if status in ANSWERS else "lost" if status == "lost" else "failed"
            getattr(account, part)[model, prompt].append(usd)
    return account


@dataclass
class Unrecorded:
    """Answers that the server handed over and that are not in the ledger as answers.

    Attributes:
        twice: pairs with several; `unexplained`: without an attempt that says why.
        difference: between the bills when these are left out, in USD.
    """

    calls: int = 0
    usd: float = 0.0
    twice: int = 0
    unexplained: int = 0
    difference: float = 0.0


def compared(server: Account, ledger: Account, tally: Tally) -> Unrecorded:
    """Match the bills pair by pair."""
    found = Unrecorded()
    for pair in server.delivered.keys() | server.failed.keys() | ledger.delivered.keys():
        whole, broken = server.delivered.get(pair, []), server.failed.get(pair, [])
        kept = ledger.delivered.get(pair, [])
        possible = [*ledger.failed.get(pair, []), *ledger.lost.get(pair, [])]
        spare, name = whole[len(kept) :], f"{pair[0]} {pair[1].hex()[:8]}"
        tally.check(len(kept) <= 1, f"{name}: {len(kept)} answers were paid for")
        tally.check(len(kept) <= len(whole), f"{name}: an answer that was never delivered")
        if kept and whole:
            same = abs(kept[0] - whole[0]) < EXACT
            tally.check(same, f"{name}: billed {whole[0]}, kept {kept[0]}")
        explained = len(spare) + len(broken) <= len(possible)
        billed = f"{len(whole)} answers and {len(broken)} broken ones billed"
        tally.check(explained, f"{name}: {billed}, {len(kept)} kept, {len(possible)} possible")
        paid, most = sum(spare) + sum(broken), sum(possible)
        tally.check(paid <= most + EXACT, f"{name}: {paid} not recorded, at most {most} told")
        found.calls, found.usd = found.calls + len(spare), found.usd + sum(spare)
        found.twice += len(whole) > 1
        found.unexplained += len(whole) > 1 and not explained
    found.difference = server.usd("delivered") - found.usd - ledger.usd("delivered")
    tally.check(abs(found.difference) < EXACT, f"the bills differ by ${found.difference:.9f}")
    return found


# --- processes -------------------------------------------------------------------------------


class Worker:
    """One process after another with the same statement, on the ledger that all share."""

    def __init__(self, scene: Scene, seed: int, tally: Tally) -> None:
        self.scene, self.tally = scene, tally
        self.draws = random.Random(seed)
        self.life_s = FIRST_LIFE_S

    def round(self, number: int) -> dict[str, Any] | None:
        """Be ended some times at random moments, then come to the end."""
        task = {"prompt": f"Round {number}. Is this review good? {{input}}"}
        self.scene.settings = {"tasks": {"soak": task}, "default_task": "soak"}
        for _ in range(self.draws.randint(1, 3)):
            kind = self.draws.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGINT))
            self._disturbed(kind, self.draws.random() * self.life_s)
        started = time.monotonic()
        result = self.finished()
        self.life_s = max(1.0, time.monotonic() - started)
        return result

    def finished(self) -> dict[str, Any] | None:
        """What the statement leads to when nobody ends it."""
        code = self._ended(self.scene.begin(), STUCK_S, signal.SIGKILL)
        self.tally.statements += 1
        if code:
            self.tally.check(False, f"a statement ended with {code}: {self.scene.said()[-500:]}")
            return None
        result = json.loads(self.scene.out.read_text())
        self.scene.out.unlink()
        return dict(result)

    def _disturbed(self, kind: signal.Signals, after_s: float) -> None:
        code = self._ended(self.scene.begin(), after_s, kind)
        error = self.scene.said()
        expected = (-kind,) if kind == signal.SIGKILL else (1, -kind)
        fine = code == 0 or (code in expected and (not error or "interrupt" in error.lower()))
        self.tally.check(fine, f"{kind.name} ended a statement with {code}: {error[-500:]}")
        self.tally.ended["ended before the signal" if code == 0 else kind.name] += 1

    def _ended(self, pid: int, seconds: float, kind: signal.Signals) -> int:
        """The exit code of a process, which gets a signal after some time."""

        def end(how: signal.Signals) -> None:
            with suppress(ProcessLookupError):
                os.kill(pid, how)

        plans = ((seconds, kind), (seconds + STUCK_S, signal.SIGKILL))
        timers = [threading.Timer(after_s, end, [how]) for after_s, how in plans]
        for timer in timers:
            timer.daemon = True
            timer.start()
        try:
            return self.scene.zygote.ended()
        finally:
            for timer in timers:
                timer.cancel()


def one_round(number: int, workers: list[Worker], pool: ThreadPoolExecutor, tally: Tally) -> None:
    """All processes with the same new prompts; what came out, and what the bills say of it."""
    results = list(pool.map(lambda worker: worker.round(number), workers))
    scene = workers[0].scene
    settled(scene.server)
    before = len(scene.server.calls)
    results.append(workers[0].finished())
    tally.check(len(scene.server.calls) == before, f"round {number}: a rerun asked again")
    found = [comparable(result, scene.server.base_url) for result in results if result]
    tally.check(all(f == found[0] for f in found), f"round {number}: processes do not agree")
    store = Ledger(scene.store)
    for result in filter(None, results):
        for _, answer, _, error, _ in result["rows"]:
            tally.check(bool(answer) and not error, f"round {number}: a row is lost: {error}")
        tally.check(len(result["rows"]) == scene.rows, f"round {number}: rows are lost")
        tally.rows += len(result["rows"])
        for check in verify(result["report"], store):
            tally.check(check.holds, f"round {number}: {check.what}: {check.detail}")
    store.close()
    leftover = [path.name for path in scene.folder.glob("*-sent-*")]
    tally.check(not leftover, f"round {number}: notes of processes are left: {leftover}")
    compared(of_server(scene.server), of_ledger(scene.store), tally)
    tally.rounds += 1


# --- the soak --------------------------------------------------------------------------------


def soak(minutes: float, processes: int, rows: int, seed: int) -> Tally:
    """Rounds until the time is over; prints both bills."""
    share = (FAULTS - sum(RARE.values())) / len(KINDS)
    faults = mixture(dict.fromkeys(KINDS, share) | RARE, seed)
    tally, deadline = Tally(), time.monotonic() + 60 * minutes
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(TestServer(answer=said, latency_s=LATENCY_S, faults=faults))
        zygotes = [Zygote() for _ in range(processes)]
        for zygote in zygotes:
            stack.callback(zygote.close)
        pool = stack.enter_context(ThreadPoolExecutor(processes))
        workers = [
            Worker(Scene(folder, server, zygote, rows, name=str(k)), 1000 * seed + k, tally)
            for k, zygote in enumerate(zygotes)
        ]
        while time.monotonic() < deadline:
            one_round(tally.rounds + 1, workers, pool, tally)
            wrong = f", {len(tally.wrong)} things wrong" if tally.wrong else ""
            print(f"round {tally.rounds}: {len(server.calls):,} calls so far{wrong}", flush=True)
        told(server, of_ledger(workers[0].scene.store), tally)
    return tally


def told(server: TestServer, ledger: Account, tally: Tally) -> None:
    """Both bills beside each other."""
    theirs, kinds = of_server(server), Counter(line.kind for line in server.bill)
    spare = compared(theirs, ledger, tally)
    ends = ", ".join(f"{name}: {n}" for name, n in sorted(tally.ended.items()))
    faulty = sum(not line.delivered for line in server.bill)
    print(f"\n{tally.rounds} rounds, {tally.statements} statements to their end; {ends}")
    print(f"{len(server.calls):,} calls, {len(server.bill):,} billed ({dict(kinds)})")
    print(f"{'':44}{'calls':>9}{'USD':>14}")
    lines = [
        ("server: answers delivered whole", theirs.calls("delivered"), theirs.usd("delivered")),
        ("  less: delivered to a process that was ended", -spare.calls, -spare.usd),
        ("ledger: answers", ledger.calls("delivered"), ledger.usd("delivered")),
        ("  difference", theirs.calls("delivered") - spare.calls - ledger.calls("delivered"),
         spare.difference),
        ("server: billed and not delivered whole", faulty, theirs.usd("failed")),
        ("ledger: failed attempts, at most", ledger.calls("failed"), ledger.usd("failed")),
        ("ledger: lost in flight, at most", ledger.calls("lost"), ledger.usd("lost")),
    ]  # fmt: skip
    for what, calls, usd in lines:
        print(f"{what:44}{calls:9,d}{usd:14.6f}")
    print(f"pairs billed twice: {spare.twice}, without a call in flight: {spare.unexplained}")
    rows = f"{tally.rows:,} rows answered, none lost"
    print(f"{len(tally.wrong)} things do not match" if tally.wrong else rows)


def main() -> int:
    parser = argparse.ArgumentParser(description="faults, kills and processes, and both bills")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rows", type=int, default=300, help="of each statement")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also when started in the background
    print(f"seed {options.seed}", flush=True)
    tally = soak(options.minutes, options.processes, options.rows, options.seed)
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
