from __future__ import annotations

import socket
import subprocess
import sys
import time
from queue import SimpleQueue
from threading import Event

from smartsql.gateway import Attempt, Attempts
from smartsql.gateway.limits import Slots
from smartsql.gateway.openai_api import OpenAIBackend
from smartsql.gateway.retry import RetryPolicy
from tests.gateway.asking import PRICE, ask, backend_for, collect, requests_for
from tests.gateway.server import TestServer, mixture

PROMPT = "Is this good?"


def test_a_request_is_given_up_after_the_last_attempt(server: TestServer) -> None:
    policy = RetryPolicy(max_attempts=3, base_s=0.01, longest_s=0.02)
    backend = backend_for(server.base_url, retry=policy)
    server.script("500", "500", "500")
    attempts = ask(backend, [PROMPT])[0]
    backend.close()
    assert [a.status for a in attempts] == ["server_error"] * 3
    assert "given up after 3 tries" in str(attempts[-1].error)
    assert len(server.calls) == 3


def test_retries_are_bounded_by_a_budget(server: TestServer) -> None:
    policy = RetryPolicy(
        base_s=0.001, longest_s=0.002, retries_per_request=0.2, spare_retries=5, suspect_after=10**6
    )
    backend = backend_for(server.base_url, retry=policy)
    server.faults = lambda call: "500"
    attempts = ask(backend, [f"p{i}" for i in range(100)])
    backend.close()
    assert all(tried[-1].status == "server_error" for tried in attempts.values())
    assert 100 <= len(server.calls) <= 125
    assert sum(map(len, attempts.values())) == len(server.calls)


def test_an_unreachable_endpoint_ends_in_connection_errors_without_a_storm() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    backend = backend_for(f"http://127.0.0.1:{port}/v1")
    began = time.monotonic()
    attempts = ask(backend, [f"p{i}" for i in range(2000)])
    assert time.monotonic() - began < 5.0
    assert {tried[-1].status for tried in attempts.values()} == {"connection"}
    assert all(a.cost_usd == 0.0 and a.retryable for tried in attempts.values() for a in tried)
    tries = sum(a.seconds > 0 for tried in attempts.values() for a in tried)
    assert tries < 100
    assert "gave up on model 'm'" in str(attempts[1999][-1].error)
    # soon afterwards one probe decides
    again = ask(backend, [f"q{i}" for i in range(50)])
    assert sum(a.seconds > 0 for tried in again.values() for a in tried) <= 3
    backend.close()


def test_one_request_to_an_unreachable_endpoint_ends_within_its_patience() -> None:
    backend = backend_for("http://127.0.0.1:9/v1")
    began = time.monotonic()
    tried = ask(backend, ["p"])[0]
    backend.close()
    assert tried[-1].status == "connection" and "cannot connect" in str(tried[-1].error)
    assert time.monotonic() - began < 3.0


def test_an_outage_that_ends_in_time_loses_nothing(server: TestServer) -> None:
    backend = backend_for(server.base_url)
    until = time.monotonic() + 0.4
    server.faults = lambda call: "503" if time.monotonic() < until else None
    attempts = ask(backend, [f"p{i}" for i in range(300)])
    backend.close()
    assert {tried[-1].status for tried in attempts.values()} == {"ok"}
    assert len(server.calls) < 600
    assert server.max_billed() == 1


def test_a_lasting_outage_fails_what_is_left_with_its_reason(server: TestServer) -> None:
    backend = backend_for(server.base_url)
    server.faults = lambda call: "500"
    attempts = ask(backend, [f"p{i}" for i in range(500)])
    backend.close()
    assert {tried[-1].status for tried in attempts.values()} == {"server_error"}
    assert len(server.calls) < 300
    assert "HTTP 500" in str(attempts[499][-1].error)


def test_a_wrong_key_stops_after_a_few_calls(server: TestServer) -> None:
    server.api_key = "right"
    backend = backend_for(server.base_url, api_key="wrong-key-0123")
    attempts = ask(backend, [f"p{i}" for i in range(500)])
    backend.close()
    assert {tried[-1].status for tried in attempts.values()} == {"rejected"}
    assert not any(a.retryable for tried in attempts.values() for a in tried)
    assert len(server.calls) <= 32


def test_bad_prompts_do_not_condemn_the_endpoint(server: TestServer) -> None:
    backend = backend_for(server.base_url)
    server.faults = lambda call: "400" if call.prompt.startswith("bad") else None
    prompts = [f"bad {i}" for i in range(100)] + [f"good {i}" for i in range(100)]
    attempts = ask(backend, prompts)
    backend.close()
    assert [attempts[i][-1].status for i in range(200)] == ["rejected"] * 100 + ["ok"] * 100


def test_a_storm_of_all_faults_ends_right() -> None:
    kinds = ("429", "500", "503", "reset", "billed_reset", "truncated", "html", "cut_body", "408")
    faults = mixture({kind: 0.3 / len(kinds) for kind in kinds}, seed=5)
    prompts = [f"row {i}" for i in range(1500)]
    with TestServer(lambda model, prompt: prompt.upper(), faults=faults) as server:
        backend = backend_for(server.base_url, slots=Slots(64))
        attempts = ask(backend, prompts, timeout_s=40)
        backend.close()
        assert [attempts[i][-1].text for i in range(1500)] == [p.upper() for p in prompts]
        assert sum(map(len, attempts.values())) == len(server.calls) < 1.6 * 1500
        billed = PRICE.cost_usd(*server.billed_tokens("m"))
        owned_up = sum(a.cost_usd for tried in attempts.values() for a in tried)
        delivered = sum(tried[-1].cost_usd for tried in attempts.values())
        assert delivered < billed <= owned_up


def test_cancelling_ends_calls_in_flight_at_once_and_keeps_what_came_back(
    server: TestServer,
) -> None:
    backend = backend_for(server.base_url)
    server.faults = lambda call: "hang" if call.serial >= 50 else None
    out: Attempts = SimpleQueue()
    cancelled = Event()
    backend.start(requests_for([f"p{i}" for i in range(2_000)]), (), out, cancelled)
    early: list[Attempt] = []
    while len(early) < 50:
        early += out.get(timeout=5)
    time.sleep(0.2)
    began = time.monotonic()
    cancelled.set()
    rest: list[Attempt] = []
    while len(early) + len(rest) < 2_000:
        rest += out.get(timeout=5)
    assert time.monotonic() - began < 0.5
    assert {a.status for a in early} == {"ok"}
    assert {a.status for a in rest} == {"cancelled"} and all(a.final for a in rest)
    assert len({a.index for a in early + rest}) == 2_000
    in_flight = [a for a in rest if a.cost_usd > 0]
    assert len(in_flight) == len(server.calls) - 50 == 16
    backend.close()


def test_what_is_cancelled_before_it_begins_sends_nothing(
    server: TestServer, backend: OpenAIBackend
) -> None:
    out: Attempts = SimpleQueue()
    cancelled = Event()
    cancelled.set()
    backend.start(requests_for(["a"] * 100), (), out, cancelled)
    attempts = collect(out, 100)
    assert {tried[0].status for tried in attempts.values()} == {"cancelled"}
    assert not any(tried[0].cost_usd for tried in attempts.values())
    assert not server.calls
    assert ask(backend, ["b"])[0][-1].status == "ok"


def test_closing_cancels_what_is_under_way_and_the_backend_can_start_again(
    server: TestServer, backend: OpenAIBackend
) -> None:
    server.faults = lambda call: "hang"
    out: Attempts = SimpleQueue()
    backend.start(requests_for(["a", "b"]), (), out, Event())
    while len(server.calls) < 2:
        time.sleep(0.01)
    backend.close()
    assert {tried[-1].status for tried in collect(out, 2).values()} == {"cancelled"}
    server.faults = None
    assert ask(backend, ["c"])[0][-1].status == "ok"


LEAVES_OPEN = """
import sys, time
from queue import SimpleQueue
from threading import Event
import smartsql.gateway.openai_api
assert not {"openai", "aiohttp", "httpx2", "genai_prices", "pydantic"} & set(sys.modules)
from tests.gateway.asking import ask, backend_for, requests_for
backend = backend_for(sys.argv[1])
assert ask(backend, ["a"])[0][-1].status == "ok"
backend.start(requests_for(["hang"] * 50), (), SimpleQueue(), Event())
time.sleep(0.2)
"""


def test_a_process_that_closes_nothing_ends_in_silence(server: TestServer) -> None:
    server.faults = lambda call: "hang" if call.prompt == "hang" else None
    command = [sys.executable, "-X", "dev", "-c", LEAVES_OPEN, server.base_url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_start_returns_at_once_and_many_requests_are_no_tasks(server: TestServer) -> None:
    backend = backend_for(server.base_url)
    server.faults = lambda call: "hang"
    cancelled, out = Event(), SimpleQueue[list[Attempt]]()
    requests = requests_for([f"p{i}" for i in range(200_000)])
    began = time.monotonic()
    backend.start(requests, (), out, cancelled)
    assert time.monotonic() - began < 0.1
    cancelled.set()
    finals = 0
    while finals < len(requests):
        finals += sum(a.final for a in out.get(timeout=10))
    backend.close()
