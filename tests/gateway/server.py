"""A small OpenAI-compatible server on loopback that can misbehave and keeps its own bill.

Real HTTP/1.1 on a raw asyncio protocol, fast enough not to be the bottleneck. In a test:

    with TestServer(answer=lambda model, prompt: "positive", latency_s=0.01) as server:
        server.script("429", Fault("status", status=503, retry_after_s=1), "billed_reset")
        ...                      # point a client at server.base_url
        assert server.max_billed() == 1

As a process of its own: `python -m tests.gateway.server --latency 0.05`, or `spawned(...)` below.
It prints its base URL on the first line; GET /bill tells what was billed, POST /reset forgets it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from tests.gateway.batches import BatchDesk
from tests.gateway.faults import Answer, Billed, Call, Fault, fault_of, mixture
from tests.gateway.http1 import Connection, HTTPRequest
from tests.gateway.minutes import Minutes
from tests.gateway.payloads import answer_body, error_body, waiting_headers

__all__ = [
    "Answer", "Billed", "Call", "Fault", "Minutes", "Spawned", "TestServer", "mixture", "spawned",
]  # fmt: skip


class TestServer:
    """The server on a thread of its own; attributes may be changed while it runs.

    Args:
        answer: (model, prompt) -> text or `Answer`.
        reply: (call) -> text or `Answer`; goes before `answer`, for what depends on more.
        latency_s: time from request to response; or (call) -> that time, so that calls end out
            of order.
        faults: decides for every call; `script` goes before it.
        api_key: the only key that is let in; None lets all in.
        models: known model ids; None knows all. Others get 404.
        unsupported: parameters that are refused with 400, in OpenAI's words.
        slots: calls served at once; more get 429 at once. None: no limit.
        minutes: limits of requests and tokens a minute.
    """

    __test__ = False

    def __init__(
        self,
        answer: Callable[[str, str], str | Answer | None] = lambda model, prompt: "ok",
        *,
        reply: Callable[[Call], str | Answer | None] | None = None,
        latency_s: float | Callable[[Call], float] = 0.0,
        faults: Callable[[Call], str | Fault | None] | None = None,
        api_key: str | None = None,
        models: set[str] | None = None,
        unsupported: tuple[str, ...] = (),
        slots: int | None = None,
        minutes: Minutes | None = None,
        port: int = 0,
    ) -> None:
        self.answer = answer
        self.reply = reply
        self.latency_s = latency_s
        self.faults = faults
        self.api_key = api_key
        self.models = models
        self.unsupported = unsupported
        self.slots = slots
        self.minutes = minutes
        self.port = port
        self._script: deque[str | Fault] = deque()
        self._connections: set[Connection] = set()
        self._ready = threading.Event()
        self._endless: set[asyncio.Task[None]] = set()
        self.reset()

    # -- what tests ask ------------------------------------------------------------------

    def reset(self) -> None:
        self.calls: list[Call] = []
        self.bill: list[Billed] = []
        self.rejected = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.endless_bytes: list[int] = []
        self.batches = BatchDesk(self)
        self._seen: Counter[tuple[str, str]] = Counter()
        if self.minutes is not None:
            self.minutes.reset()

    def script(self, *faults: str | Fault) -> None:
        """What happens to the next calls, in order of arrival."""
        self._script.extend(faults)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def multiplicity(self) -> Counter[tuple[str, str]]:
        """How often each (model, prompt) was billed."""
        return Counter((b.model, b.prompt) for b in self.bill)

    def max_billed(self) -> int:
        return max(self.multiplicity().values(), default=0)

    def billed_pairs(self) -> set[tuple[str, str]]:
        return set(self.multiplicity())

    def billed_tokens(self, model: str) -> tuple[int, int]:
        return self._tokens(b for b in self.bill if b.model == model)

    def delivered_tokens(self, model: str) -> tuple[int, int]:
        """Those of answers that were handed over whole."""
        return self._tokens(b for b in self.bill if b.model == model and b.delivered)

    def calls_by_pair(self) -> Counter[tuple[str, str]]:
        """How often each (model, prompt) arrived, whatever came of it."""
        return Counter((call.model, call.prompt) for call in self.calls)

    @staticmethod
    def _tokens(lines: Iterable[Billed]) -> tuple[int, int]:
        mine = list(lines)
        return sum(b.prompt_tokens for b in mine), sum(b.completion_tokens for b in mine)

    def summary(self) -> dict[str, Any]:
        return {
            "calls": len(self.calls),
            "billed": len(self.bill),
            "distinct": len(self.billed_pairs()),
            "max_billed": self.max_billed(),
            "rejected": self.rejected,
            "most_in_flight": self.most_in_flight,
            "prompt_tokens": sum(b.prompt_tokens for b in self.bill),
            "completion_tokens": sum(b.completion_tokens for b in self.bill),
            "most_calls": max(self.calls_by_pair().values(), default=0),
            "models": {name: self._of_model(name) for name in sorted({b.model for b in self.bill})},
            "endless_bytes": max(self.endless_bytes, default=0),
            "violations": len(self.minutes.violations) if self.minutes else 0,
            "most_a_minute": self._most_a_minute(),
        }

    def _of_model(self, name: str) -> dict[str, Any]:
        return {
            "calls": sum(call.model == name for call in self.calls),
            "billed": self.billed_tokens(name),
            "delivered": self.delivered_tokens(name),
        }

    def _most_a_minute(self) -> dict[str, tuple[float, float]]:
        """By model: the most requests and tokens within one minute."""
        if self.minutes is None:
            return {}
        arrived, billed = self.minutes.arrived, self.minutes.billed
        return {model: (window.most, billed[model].most) for model, window in arrived.items()}

    # -- life ------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    async def serve(self) -> None:
        """Listen until stopped; for a process of its own."""
        await self._main(lambda: print(self.base_url, flush=True))

    async def _main(self, listening: Callable[[], None] = lambda: None) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await self._loop.create_server(
            lambda: Connection(self.handle, self._connections), "127.0.0.1", self.port, backlog=2048
        )
        self.port = server.sockets[0].getsockname()[1]
        listening()
        self._ready.set()
        await self._stopping.wait()
        server.close()
        for connection in list(self._connections):
            connection.abort()
        await asyncio.gather(*self._endless, return_exceptions=True)

    # -- a request --------------------------------------------------------------------------

    def handle(self, to: Connection, request: HTTPRequest) -> None:
        if request.path == "/bill":
            to.respond(200, json.dumps(self.summary()))
        elif request.path == "/reset":
            self.reset()
            to.respond(200, "{}")
        elif request.path == "/v1/models":
            names = sorted(self.models or {"any"})
            to.respond(200, json.dumps({"data": [{"id": n, "object": "model"} for n in names]}))
        elif request.path == "/v1/chat/completions":
            self._complete(to, request)
        elif not self.batches.handles(to, request):
            to.respond(404, error_body("no such path", None, None))

    def _complete(self, to: Connection, request: HTTPRequest) -> None:
        body = json.loads(request.body)
        model, prompt = body["model"], body["messages"][-1]["content"]
        pair = (model, prompt)
        call = Call(len(self.calls), model, prompt, self._seen[pair], body, request.headers)
        self._seen[pair] += 1
        self.calls.append(call)
        fault = self._refusal(call) or self._too_fast(call) or self._next_fault(call)
        if self.slots is not None and self.in_flight >= self.slots:
            self.rejected += 1
            return to.respond(429, error_body("too many at once", "rate_limit_exceeded", None))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        finish = lambda: self._finish(to, call, fault)  # noqa: E731
        latency_s = self.latency_s(call) if callable(self.latency_s) else self.latency_s
        if latency_s:
            self._loop.call_later(latency_s, finish)
        else:
            self._loop.call_soon(finish)
        return None

    def _next_fault(self, call: Call) -> Fault:
        if self._script:
            return fault_of(self._script.popleft())
        return fault_of(self.faults(call) if self.faults else None)

    def _too_fast(self, call: Call) -> Fault | None:
        wait_s = self.minutes.arrive(call.model, call.at) if self.minutes else None
        if wait_s is None:
            return None
        self.rejected += 1
        asked_s = f"{wait_s:.3f}" if self.minutes and self.minutes.retry_after else None
        return Fault("status", status=429, code="rate_limit_exceeded", retry_after_s=asked_s)

    def _refusal(self, call: Call) -> Fault | None:
        given = call.headers.get("authorization", "").removeprefix("Bearer ")
        if self.api_key is not None and given != self.api_key:
            return Fault(
                "status",
                status=401,
                code="invalid_api_key",
                message=f"Incorrect API key provided: {given}.",
            )
        if self.models is not None and call.model not in self.models:
            return Fault(
                "status",
                status=404,
                code="model_not_found",
                message=f"The model '{call.model}' does not exist.",
            )
        for name in self.unsupported:
            if name in call.body:
                return Fault(
                    "status",
                    status=400,
                    code="unsupported_parameter",
                    param=name,
                    message=f"Unsupported parameter: '{name}' is not supported with this model.",
                )
        return None

    def _finish(self, to: Connection, call: Call, fault: Fault) -> None:
        self.in_flight -= 1
        kind = fault.kind
        if kind == "status":
            to.respond(
                fault.status,
                error_body(fault.message, fault.code, fault.param),
                waiting_headers(fault),
            )
        elif kind == "reset":
            to.abort()
        elif kind == "html":
            to.respond(200, "<html><body>Welcome to the hotel</body></html>", {}, "text/html")
        elif kind == "redirect":
            to.respond(307, "", {"Location": fault.location})
        elif kind == "body":
            to.respond(200, fault.body)
        else:
            self._deliver(to, call, fault)

    def _deliver(self, to: Connection, call: Call, fault: Fault) -> None:
        said = self.reply(call) if self.reply else self.answer(call.model, call.prompt)
        answer = said if isinstance(said, Answer) else Answer(said)
        payload, usage = answer_body(call, answer, fault.kind)
        line = Billed(call.model, call.prompt, *usage, fault.kind)
        self.bill.append(line)
        if self.minutes:
            self.minutes.bill(call.model, time.monotonic(), sum(usage))
        if fault.kind == "billed_reset":
            to.abort()
        elif fault.kind == "hang":
            pass
        elif fault.kind == "cut_body":
            to.start_body(payload)
            self._loop.call_later(0.01, to.abort)
        elif fault.kind == "slow_body":
            rest = to.start_body(payload)
            self._loop.call_later(fault.delay_s, lambda: _hand_over(line, to.write(rest)))
        elif fault.kind in ("endless", "dripping"):
            pause_s = fault.delay_s if fault.kind == "dripping" else 0.0
            task = self._loop.create_task(self._write_endlessly(to, payload, pause_s))
            self._endless.add(task)
            task.add_done_callback(self._endless.discard)
        elif fault.kind == "truncated":
            to.respond(200, payload[: len(payload) // 2])
        elif fault.kind == "late":
            self._loop.call_later(fault.delay_s, lambda: _hand_over(line, to.respond(200, payload)))
        else:
            _hand_over(line, to.respond(200, payload))

    async def _write_endlessly(self, to: Connection, payload: str, pause_s: float) -> None:
        self.endless_bytes.append(await to.endless_body(payload[:-1], pause_s))


def _hand_over(line: Billed, was_sent: bool) -> None:
    line.delivered = was_sent


class Spawned:
    """A server in its own process, seen from outside."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._root = base_url.removesuffix("/v1")

    def summary(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._root}/bill") as response:
            return dict(json.load(response))

    def reset(self) -> None:
        urllib.request.urlopen(f"{self._root}/reset", data=b"").close()


@contextlib.contextmanager
def spawned(*arguments: str) -> Iterator[Spawned]:
    """`python -m tests.gateway.server` with these arguments, until the block ends."""
    command = [sys.executable, "-m", "tests.gateway.server", *arguments]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            base_url = process.stdout.readline().strip()
            assert base_url.startswith("http://"), "the test server did not start"
            yield Spawned(base_url)
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description="OpenAI-compatible test server")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds")
    parser.add_argument("--slots", type=int, help="calls at once before 429")
    parser.add_argument("--answer", default="positive")
    parser.add_argument("--answers", help="MODULE:FUNCTION of (model, prompt), goes before answer")
    parser.add_argument("--mix", default="", help="random faults: 429=0.05,reset=0.05")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--requests", type=int, help="a minute")
    parser.add_argument("--tokens", type=int, help="a minute")
    parser.add_argument("--minute", type=float, default=60.0, help="seconds of a minute")
    parser.add_argument("--enforced", action="store_true", help="429 above those limits")
    options = parser.parse_args()
    pairs = (part.split("=") for part in options.mix.split(",") if part)
    shares = {kind: float(share) for kind, share in pairs}
    answer = lambda model, prompt: options.answer  # noqa: E731
    if options.answers:
        module, _, function = options.answers.partition(":")
        answer = getattr(importlib.import_module(module), function)
    server = TestServer(
        answer,
        latency_s=options.latency,
        slots=options.slots,
        port=options.port,
        faults=mixture(shares, options.seed) if shares else None,
        minutes=Minutes(options.requests, options.tokens, options.enforced, options.minute)
        if options.requests or options.tokens
        else None,
    )
    asyncio.run(server.serve())


if __name__ == "__main__":
    main()
