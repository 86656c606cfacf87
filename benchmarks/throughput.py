"""Calls a second through the gateway, beside a bare AsyncOpenAI loop on the same transport.

Against a test server in its own process that answers after 50 ms. Three sides take turns in one
run, several times: the bare loop, the gateway alone, and a whole statement (SQL, ledger on disk,
report). What counts is the ratio of their medians.

Then a server with 40 places, which refuses more at once, and the gateway with more places than
that, from a cold start: the part of the server's capacity that is used, beside that of a bare loop
of 40 which knows the number, and the part of the calls that is refused.

    python -m benchmarks.throughput [--pairs 5] [--calls-per-place 24] [--calls 4000]

Exits with 1 when a ratio is below 0.95; when more than 2 % are refused; or when less than 85 % is
used of the capacity, or of what the bare loop can use on this machine if that is less.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from queue import SimpleQueue
from threading import Event

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pyarrow as pa

import smartsql
from smartsql.gateway import Attempt, Price, Request
from smartsql.gateway.limits import Slots
from smartsql.gateway.loop import shared_loop
from smartsql.gateway.openai_api import OpenAIBackend
from tests.gateway.server import Spawned, spawned

LATENCY_S = 0.05
REQUIRED = 0.95
SLOTS = 40
USED = 0.85
REFUSED = 0.02
REVIEW = "The plot is thin, but the two leads carry it; I would watch it again any time. " * 2


def prompts(n: int, run: str) -> list[str]:
    return [f"Is the review positive or negative?\n\n{REVIEW} ({run} {i})" for i in range(n)]


async def bare(base_url: str, texts: list[str], in_flight: int) -> float:
    """Seconds of the shortest loop that a user of the client library would write."""
    from openai import AsyncOpenAI, DefaultAioHttpClient

    async with AsyncOpenAI(
        base_url=base_url, api_key="none", max_retries=0, http_client=DefaultAioHttpClient()
    ) as client:

        async def ask(text: str) -> str | None:
            reply = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": text}], max_completion_tokens=16
            )
            return reply.choices[0].message.content

        async def work() -> None:
            for text in queue:
                assert await ask(text) == "positive"

        await asyncio.gather(*(ask(f"warm up {i}") for i in range(in_flight)))
        queue = iter(texts)
        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(in_flight)))
        return time.perf_counter() - began


def backend_of(base_url: str, in_flight: int) -> OpenAIBackend:
    return OpenAIBackend(
        "m",
        base_url=base_url,
        price=Price(1.0, 1.0, "benchmark"),
        slots=Slots(in_flight),
        parameters={"max_completion_tokens": 16},
    )


def through_gateway(base_url: str, texts: list[str], in_flight: int) -> float:
    """Seconds of the same calls through `OpenAIBackend`, until the last answer is read."""
    backend = backend_of(base_url, in_flight)
    try:
        answered(backend, [f"warm up {i}" for i in range(in_flight)])
        began = time.perf_counter()
        assert set(answered(backend, texts)) == {"positive"}
        return time.perf_counter() - began
    finally:
        backend.close()


def answered(backend: OpenAIBackend, texts: list[str]) -> list[str | None]:
    out: SimpleQueue[list[Attempt]] = SimpleQueue()
    requests = [Request(i, text, text) for i, text in enumerate(texts)]
    backend.start(requests, (), out, Event())
    answers: list[str | None] = [None] * len(texts)
    missing = len(texts)
    while missing:
        for attempt in out.get():
            answers[attempt.index] = attempt.text
            missing -= attempt.final
    return answers


def through_sql(base_url: str, texts: list[str], in_flight: int) -> float:
    """Seconds of the same calls as one statement: SQL, durable ledger, report."""
    model = smartsql.Model(
        name="m",
        base_url=base_url,
        reference=True,
        input_usd_per_mtok=1.0,
        output_usd_per_mtok=1.0,
        parameters={"max_completion_tokens": 16},
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        smartsql.connect(
            config=smartsql.Settings(),
            models=[model],
            store=str(Path(folder) / "answers.sqlite"),
            max_in_flight=in_flight,
        ) as con,
    ):
        con.register("prompts", pa.table({"prompt": texts}))
        warm = f"SELECT smart_llm('warm up ' || i, 0.0) FROM range({in_flight}) t(i)"
        con.execute(warm).fetchall()
        began = time.perf_counter()
        answers = con.execute("SELECT smart_llm(prompt, 0.0) FROM prompts").fetchall()
        seconds = time.perf_counter() - began
        assert set(answers) == {("positive",)}
        assert len(answers) == len(texts)
        return seconds


def compare(server: Spawned, in_flight: int, pairs: int, calls: int) -> float:
    sides = ("bare", "gateway", "statement")
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for pair in range(pairs):
        for side in sides:
            texts = prompts(calls, f"{in_flight} {pair} {side}")
            if side == "bare":
                seconds = shared_loop().wait(bare(server.base_url, texts, in_flight), timeout_s=600)
                assert seconds is not None
            else:
                through = through_gateway if side == "gateway" else through_sql
                seconds = through(server.base_url, texts, in_flight)
            rates[side].append(calls / seconds)
    medians = {side: statistics.median(values) for side, values in rates.items()}
    ratios = [medians[side] / medians["bare"] for side in ("gateway", "statement")]
    cells = "".join(f"{medians[side]:12.0f}" for side in sides)
    print(f"{in_flight:9d}{cells}{ratios[0]:12.2f}{ratios[1]:12.2f}", flush=True)
    return min(ratios)


def crowded(calls: int) -> bool:
    """Whether a server with few places is used well and not flooded."""
    capacity = SLOTS / LATENCY_S
    is_enough = True
    with spawned("--latency", str(LATENCY_S), "--slots", str(SLOTS)) as server:
        texts = prompts(calls, "bare")
        seconds = shared_loop().wait(bare(server.base_url, texts, SLOTS), timeout_s=600)
        assert seconds is not None
        possible = min(1.0, calls / seconds / capacity)
        print(f"{'configured':>10}{'calls/s':>12}{'used':>12}{'refused':>12}{'bare used':>12}")
        for configured in (64, 256):
            server.reset()
            backend = backend_of(server.base_url, configured)
            began = time.perf_counter()
            assert set(answered(backend, prompts(calls, f"{configured}"))) == {"positive"}
            rate = calls / (time.perf_counter() - began)
            backend.close()
            bill = server.summary()
            refused = bill["rejected"] / bill["calls"]
            used = rate / capacity
            cells = f"{configured:10d}{rate:12.0f}{used:12.2f}{refused:12.3f}{possible:12.2f}"
            print(cells, flush=True)
            is_enough &= used >= USED * possible and refused < REFUSED
    return is_enough


def main() -> int:
    parser = argparse.ArgumentParser(description="gateway beside a bare AsyncOpenAI loop")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--calls-per-place", type=int, default=24)
    parser.add_argument("--calls", type=int, default=4000, help="to the server with few places")
    options = parser.parse_args()
    with spawned("--latency", str(LATENCY_S)) as server:
        names = ("bare", "gateway", "statement", "gw/bare", "stmt/bare")
        print("in flight" + "".join(f"{name:>12}" for name in names))
        ratios = [compare(server, n, options.pairs, n * options.calls_per_place) for n in (64, 256)]
    is_enough = crowded(options.calls)
    if not is_enough:
        print(f"a server with {SLOTS} places is not used well, or flooded", file=sys.stderr)
    if min(ratios) < REQUIRED:
        print(f"below {REQUIRED} of the bare loop", file=sys.stderr)
        return 1
    return 0 if is_enough else 1


if __name__ == "__main__":
    sys.exit(main())
