"""Calls a second through the gateway, beside a bare AsyncOpenAI loop on the same transport.

Against a test server in its own process that answers after 50 ms. Both sides take turns in one
run, several times; what counts is the ratio of their medians.

    python -m benchmarks.throughput [--pairs 5] [--calls-per-place 24]

Exits with 1 when a ratio is below 0.85.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from pathlib import Path
from queue import SimpleQueue
from threading import Event

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from smartsql.gateway import Attempt, Price, Request
from smartsql.gateway.limits import Slots
from smartsql.gateway.loop import shared_loop
from smartsql.gateway.openai_api import OpenAIBackend
from tests.gateway.server import Spawned, spawned

LATENCY_S = 0.05
REQUIRED = 0.85
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


def through_gateway(base_url: str, texts: list[str], in_flight: int) -> float:
    """Seconds of the same calls through `OpenAIBackend`, until the last answer is read."""
    backend = OpenAIBackend(
        "m",
        base_url=base_url,
        price=Price(1.0, 1.0, "benchmark"),
        slots=Slots(in_flight),
        parameters={"max_completion_tokens": 16},
    )
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


def compare(server: Spawned, in_flight: int, pairs: int, calls: int) -> float:
    rates: dict[str, list[float]] = {"bare": [], "gateway": []}
    for pair in range(pairs):
        texts = prompts(calls, f"{in_flight} {pair}")
        seconds = shared_loop().wait(bare(server.base_url, texts, in_flight), timeout_s=600)
        assert seconds is not None
        rates["bare"].append(calls / seconds)
        rates["gateway"].append(calls / through_gateway(server.base_url, texts, in_flight))
    bare_rate, our_rate = (statistics.median(rates[side]) for side in ("bare", "gateway"))
    spread = "  ".join(
        f"{side} {min(values):.0f}-{max(values):.0f}" for side, values in rates.items()
    )
    ratio = our_rate / bare_rate
    print(f"{in_flight:9d} {bare_rate:11.0f} {our_rate:11.0f} {ratio:7.2f}   {spread}", flush=True)
    return ratio


def main() -> int:
    parser = argparse.ArgumentParser(description="gateway beside a bare AsyncOpenAI loop")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--calls-per-place", type=int, default=24)
    options = parser.parse_args()
    with spawned("--latency", str(LATENCY_S)) as server:
        print("in flight  bare call/s  ours call/s   ratio   range")
        ratios = [compare(server, n, options.pairs, n * options.calls_per_place) for n in (64, 256)]
    if min(ratios) < REQUIRED:
        print(f"below {REQUIRED} of the bare loop", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
