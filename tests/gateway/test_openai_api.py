from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator
from email.utils import formatdate
from queue import SimpleQueue
from threading import Event

import pytest

from smartsql.errors import ConfigError, ParameterError
from smartsql.gateway import DELIVERED, Attempt, Attempts
from smartsql.gateway.limits import Slots
from smartsql.gateway.openai_api import OpenAIBackend
from smartsql.gateway.retry import RetryPolicy
from tests.gateway.asking import PRICE, QUICK, ask, backend_for, collect, requests_for
from tests.gateway.server import Answer, Call, Fault, TestServer, mixture

PROMPT = "Is this good?"


@pytest.fixture
def server() -> Iterator[TestServer]:
    with TestServer(lambda model, prompt: f"echo {prompt}") as running:
        yield running


@pytest.fixture
def backend(server: TestServer) -> Iterator[OpenAIBackend]:
    made = backend_for(server.base_url)
    yield made
    made.close()


def worst(backend: OpenAIBackend, prompt: str = PROMPT) -> float:
    return backend.worst_cost_usd(requests_for([prompt])[0])


def test_answers_carry_text_tokens_cost_time_and_the_model_that_served(
    server: TestServer, backend: OpenAIBackend
) -> None:
    server.latency_s = 0.02
    prompts = [f"prompt {i}" for i in range(100)]
    attempts = ask(backend, prompts)
    for i, prompt in enumerate(prompts):
        (answer,) = attempts[i]
        assert (answer.status, answer.text) == ("ok", f"echo {prompt}")
        assert answer.served_by == "m-2026-01-01"
        assert answer.confidence is None and answer.error is None
        assert answer.cost_usd == PRICE.cost_usd(answer.prompt_tokens, answer.completion_tokens)
        assert 0.02 <= answer.seconds < 5
    billed = server.billed_tokens("m")
    assert billed == (
        sum(a[0].prompt_tokens for a in attempts.values()),
        sum(a[0].completion_tokens for a in attempts.values()),
    )
    assert server.billed_pairs() == {("m", p) for p in prompts}
    assert server.max_billed() == 1


def test_the_request_holds_model_message_parameters_and_system(server: TestServer) -> None:
    backend = backend_for(
        server.base_url,
        model="m-id",
        system="Be brief.",
        parameters={"temperature": 0, "max_completion_tokens": 3, "reasoning_effort": "low"},
    )
    ask(backend, [PROMPT])
    backend.close()
    assert server.calls[0].body == {
        "model": "m-id",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": PROMPT},
        ],
        "temperature": 0,
        "max_completion_tokens": 3,
        "reasoning_effort": "low",
    }


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("empty", "empty"),
        ("blank", "empty"),
        ("cut", "cut"),
        ("refused", "refused"),
        ("filtered", "refused"),
    ],
)
def test_answers_without_an_answer_are_delivered_billed_and_final(
    server: TestServer, backend: OpenAIBackend, fault: str, status: str
) -> None:
    server.script(fault)
    (attempt,) = ask(backend, [PROMPT])[0]
    assert attempt.status == status and status in DELIVERED
    assert attempt.text is None
    assert attempt.cost_usd > 0 and attempt.completion_tokens > 0
    assert len(server.bill) == 1


@pytest.mark.parametrize(
    ("fault", "status", "billable"),
    [
        ("429", "rate_limited", False),
        ("429+0", "rate_limited", False),
        ("408", "timeout", False),
        ("409", "rejected", False),
        ("500", "server_error", False),
        ("502", "server_error", False),
        ("503", "server_error", False),
        ("504", "server_error", True),
        ("529", "server_error", False),
        ("reset", "connection", True),
        ("billed_reset", "connection", True),
        ("cut_body", "connection", True),
        ("truncated", "malformed", True),
        ("html", "malformed", False),
        (Fault("body", body="[1]"), "malformed", True),
        (Fault("body", body='{"choices": 3}'), "malformed", True),
        (Fault("body", body='{"error": {"code": 503, "message": "busy"}}'), "server_error", False),
    ],
)
def test_passing_failures_are_tried_again_and_every_try_is_accounted_for(
    server: TestServer, backend: OpenAIBackend, fault: str | Fault, status: str, billable: bool
) -> None:
    server.script(fault)
    first, second = ask(backend, [PROMPT])[0]
    assert (first.status, first.final, first.retryable) == (status, False, True)
    assert first.error and PROMPT not in first.error
    assert first.cost_usd == (worst(backend) if billable else 0.0)
    assert (second.status, second.text) == ("ok", f"echo {PROMPT}")
    assert len(server.calls) == 2
    # what the server billed is never more than what the attempts own up to
    billed = PRICE.cost_usd(*server.billed_tokens("m"))
    assert billed <= first.cost_usd + second.cost_usd + 1e-12


@pytest.mark.parametrize("fault", ["quota", "401", "403", "404", "400", "422"])
def test_lasting_refusals_are_not_tried_again(
    server: TestServer, backend: OpenAIBackend, fault: str
) -> None:
    server.script(fault)
    (attempt,) = ask(backend, [PROMPT])[0]
    assert (attempt.status, attempt.retryable, attempt.cost_usd) == ("rejected", False, 0.0)
    assert "scripted failure" in str(attempt.error)
    assert len(server.calls) == 1


def test_redirects_are_not_followed(server: TestServer, backend: OpenAIBackend) -> None:
    with TestServer() as other:
        server.script(Fault("redirect", location=f"{other.base_url}/chat/completions"))
        (attempt,) = ask(backend, [PROMPT])[0]
        assert not other.calls
    assert attempt.status == "rejected"
    assert "redirect" in str(attempt.error)


def test_a_hanging_endpoint_is_a_timeout_that_may_have_been_billed(server: TestServer) -> None:
    backend = backend_for(server.base_url, timeout_s=0.15)
    server.script("hang")
    first, second = ask(backend, [PROMPT])[0]
    backend.close()
    assert (first.status, second.status) == ("timeout", "ok")
    assert first.cost_usd == worst(backend)
    assert 0.15 <= first.seconds < 1.0


def test_a_dripping_body_is_read_to_its_end_or_to_the_timeout(server: TestServer) -> None:
    backend = backend_for(server.base_url, timeout_s=0.3)
    server.script(Fault("slow_body", delay_s=0.1), Fault("slow_body", delay_s=1.0))
    assert [a.status for a in ask(backend, ["a"])[0]] == ["ok"]
    assert [a.status for a in ask(backend, ["b"])[0]] == ["timeout", "ok"]
    backend.close()


@pytest.mark.parametrize(
    "wait",
    [
        {"retry_after_s": 0.4},
        {"retry_after_ms": 400},
        {"retry_after_s": "date"},
    ],
)
def test_a_wait_that_the_endpoint_asks_for_is_kept(
    server: TestServer, backend: OpenAIBackend, wait: dict[str, object]
) -> None:
    if wait == {"retry_after_s": "date"}:
        # dates have whole seconds: one within the next second or two
        wait = {"retry_after_s": formatdate(time.time() + 1.5, usegmt=True)}
    server.script(Fault("status", status=429, **wait))  # type: ignore[arg-type]
    ask(backend, [PROMPT])
    waited = server.calls[1].at - server.calls[0].at
    assert 0.35 <= waited < 2.5


def test_a_wait_beyond_the_limit_is_a_final_failure(
    server: TestServer, backend: OpenAIBackend
) -> None:
    server.script(Fault("status", status=429, retry_after_s=3600))
    (attempt,) = ask(backend, [PROMPT])[0]
    assert (attempt.status, attempt.final, attempt.retryable) == ("rate_limited", True, True)


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
    began = time.monotonic()
    again = ask(backend, [f"q{i}" for i in range(50)])
    assert time.monotonic() - began < 0.5
    assert sum(a.seconds > 0 for tried in again.values() for a in tried) <= 20
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


@pytest.mark.parametrize(
    ("refused", "sent", "arrives"),
    [
        (("max_completion_tokens",), {"max_completion_tokens": 7}, {"max_tokens": 7}),
        (("max_tokens",), {"max_tokens": 7}, {"max_completion_tokens": 7}),
        (("temperature", "seed"), {"temperature": 0, "seed": 1, "top_p": 1}, {"top_p": 1}),
    ],
)
def test_unsupported_parameters_are_renamed_or_left_out_and_remembered(
    server: TestServer,
    caplog: pytest.LogCaptureFixture,
    refused: tuple[str, ...],
    sent: dict[str, object],
    arrives: dict[str, object],
) -> None:
    server.unsupported = refused
    backend = backend_for(server.base_url, parameters=sent)
    before = backend.identity(())
    attempts = ask(backend, [f"p{i}" for i in range(40)])
    assert {tried[-1].status for tried in attempts.values()} == {"ok"}
    assert all(a.cost_usd == 0 for tried in attempts.values() for a in tried[:-1])
    calls = len(server.calls)
    assert len(ask(backend, ["later"])[0]) == 1
    assert len(server.calls) == calls + 1
    last = server.calls[-1].body
    assert {k: v for k, v in last.items() if k not in ("model", "messages")} == arrives
    assert backend.identity(()) == before
    assert len(caplog.records) == len(refused)
    backend.close()


def test_other_words_for_an_unsupported_parameter_are_understood(
    server: TestServer, backend: OpenAIBackend
) -> None:
    words = "Unrecognized request argument supplied: logprobs"
    server.script(Fault("status", status=400, message=words))
    scored = backend_for(server.base_url, logprobs=True)
    first, second = ask(scored, [PROMPT])[0]
    scored.close()
    assert (first.status, second.status, second.confidence) == ("rejected", "ok", None)
    assert "top_logprobs" not in server.calls[1].body


def test_neither_name_of_the_answer_limit_taken_is_a_final_refusal(server: TestServer) -> None:
    server.unsupported = ("max_tokens", "max_completion_tokens")
    backend = backend_for(server.base_url)
    first, last = ask(backend, [PROMPT])[0]
    backend.close()
    assert (first.status, last.status, last.retryable) == ("rejected", "rejected", False)
    assert len(server.calls) == 2


def test_cancelling_ends_calls_in_flight_at_once_and_keeps_what_came_back(
    server: TestServer,
) -> None:
    backend = backend_for(server.base_url)
    server.faults = lambda call: "hang" if call.serial >= 50 else None
    out: Attempts = SimpleQueue()
    cancelled = Event()
    backend.start(requests_for([f"p{i}" for i in range(10_000)]), (), out, cancelled)
    early: list[Attempt] = []
    while len(early) < 50:
        early += out.get(timeout=5)
    time.sleep(0.2)
    began = time.monotonic()
    cancelled.set()
    rest: list[Attempt] = []
    while len(early) + len(rest) < 10_000:
        rest += out.get(timeout=5)
    assert time.monotonic() - began < 0.5
    assert {a.status for a in early} == {"ok"}
    assert {a.status for a in rest} == {"cancelled"} and all(a.final for a in rest)
    assert len({a.index for a in early + rest}) == 10_000
    in_flight = [a for a in rest if a.cost_usd > 0]
    assert len(in_flight) == len(server.calls) - 50 == 16
    backend.close()


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


def test_no_requests_is_no_work(backend: OpenAIBackend) -> None:
    out: Attempts = SimpleQueue()
    backend.start([], (), out, Event())
    assert out.empty()


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


def test_without_usage_the_cost_is_an_upper_bound(
    server: TestServer, backend: OpenAIBackend
) -> None:
    server.script("no_usage")
    (attempt,) = ask(backend, [PROMPT])[0]
    assert attempt.status == "ok"
    assert PRICE.cost_usd(*server.billed_tokens("m")) < attempt.cost_usd <= worst(backend)
    assert attempt.cost_usd == PRICE.cost_usd(attempt.prompt_tokens, attempt.completion_tokens)


def test_the_expected_cost_is_learned_from_usage(server: TestServer) -> None:
    server.answer = lambda model, prompt: Answer("yes", usage=(2 * len(prompt), 5))
    backend = backend_for(server.base_url)
    (request,) = requests_for(["x" * 100])
    assert backend.expected_cost_usd(request) == PRICE.cost_usd(33, 10)
    ask(backend, ["y" * 50, "z" * 150])
    assert backend.expected_cost_usd(request) == pytest.approx(PRICE.cost_usd(200, 5))
    assert worst(backend, "é") == PRICE.cost_usd(2 + 64, 10)
    backend.close()


def test_identity_tells_apart_what_may_change_the_answer() -> None:
    url = "https://api.example.com/v1"
    base = backend_for(url, api_key="sk-secret")
    assert json.loads(base.identity(("a", "b"))) == {
        "kind": "openai",
        "base_url": url,
        "model": "m",
        "parameters": {"max_completion_tokens": 10},
        "system": None,
    }
    same = backend_for(url + "/", api_key="sk-other", logprobs=True, requests_per_minute=5)
    assert same.identity(()) == base.identity(("a", "b"))
    for change in ({"model": "x"}, {"parameters": {"seed": 1}}, {"system": "s"}):
        assert backend_for(url, **change).identity(()) != base.identity(())
    assert backend_for("https://api.example.com/v2").identity(()) != base.identity(())


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://api.example.com/v1", "only allowed to this machine"),
        ("http://127.0.0.1.example.com/v1", "only allowed to this machine"),
        ("ftp://api.example.com", "must look like"),
        ("api.example.com/v1", "must look like"),
        ("https://", "must look like"),
        ("https://user:hunter2@api.example.com/v1", "has a user"),
        ("https://api.example.com/v1?key=hunter2", "has a user"),
    ],
)
def test_addresses_that_are_not_safe_are_refused_by_name(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        backend_for(url)
    assert "'m'" in str(raised.value) and "hunter2" not in str(raised.value)


def test_this_machine_may_be_talked_to_without_encryption() -> None:
    for host in ("localhost", "127.0.0.1", "127.1.2.3", "[::1]"):
        backend_for(f"http://{host}:1234/v1")


def test_settings_that_cannot_be_are_refused() -> None:
    url = "http://localhost:1/v1"
    for parameters in ({"stream": True}, {"n": 2}, {"logprobs": True}, {"messages": []}):
        with pytest.raises(ConfigError, match=repr(next(iter(parameters)))):
            backend_for(url, parameters=parameters)
    with pytest.raises(ConfigError, match="max_tokens"):
        backend_for(url, parameters={"max_tokens": "many"})
    with pytest.raises(ParameterError, match="timeout_s"):
        backend_for(url, timeout_s=0)
    with pytest.raises(ParameterError, match="max_in_flight"):
        Slots(0)
    with pytest.raises(ParameterError, match="requests_per_minute"):
        backend_for(url, requests_per_minute=0)


def test_the_key_is_sent_and_appears_nowhere_else(
    server: TestServer, caplog: pytest.LogCaptureFixture
) -> None:
    canary = "sk-canary-93b1f0"
    caplog.set_level(logging.DEBUG)
    server.api_key = canary
    quick = RetryPolicy(max_attempts=2, base_s=0.01, longest_s=0.02)
    backend = backend_for(server.base_url, api_key=canary, retry=quick)
    echo = Fault("status", status=500, message=f"key {canary} {PROMPT} " + "x" * 1000)
    server.script("ok", echo, "reset", "truncated")
    attempts = [tried for _ in range(3) for tried in ask(backend, [PROMPT]).values()]
    server.api_key = "another"
    attempts += ask(backend, [PROMPT]).values()
    assert server.calls[0].headers["authorization"] == f"Bearer {canary}"
    flat = [a for tried in attempts for a in tried]
    assert "Incorrect API key provided: [key]" in str(flat[-1].error)
    assert canary not in repr(flat)
    assert not any(PROMPT in str(a.error) for a in flat)
    assert max(len(a.error or "") for a in flat) <= 250
    assert canary not in repr(backend) + str(backend) + backend.identity(())
    assert canary not in caplog.text + "".join(str(vars(r)) for r in caplog.records)
    backend.close()


def test_without_a_key_none_from_the_environment_is_sent(
    server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "canary-env")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: canary-env\nX-Team: canary-env")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    backend = backend_for(server.base_url)
    assert ask(backend, [PROMPT])[0][-1].status == "ok"
    backend.close()
    assert "canary-env" not in str(server.calls[0].headers)


def test_two_backends_and_two_runs_share_one_loop_and_end_each_request_once(
    server: TestServer,
) -> None:
    slots = Slots(8)
    first, second = (backend_for(server.base_url, name, slots=slots) for name in ("a", "b"))
    outs: list[Attempts] = [SimpleQueue() for _ in range(4)]
    for out, backend in zip(outs, (first, first, second, second), strict=True):
        backend.start(requests_for([f"p{i}" for i in range(200)]), (), out, Event())
    for out in outs:
        assert {tried[-1].status for tried in collect(out, 200).values()} == {"ok"}
    assert server.most_in_flight <= 8
    first.close()
    second.close()


def test_answers_come_in_groups_as_they_end(server: TestServer) -> None:
    server.latency_s = 0.03
    backend = backend_for(server.base_url, slots=Slots(64))
    ask(backend, ["warm up"] * 64)
    out: Attempts = SimpleQueue()
    backend.start(requests_for([f"p{i}" for i in range(256)]), (), out, Event())
    groups = []
    while sum(groups) < 256:
        groups.append(len(out.get(timeout=5)))
    backend.close()
    assert len(groups) < 100


def test_a_prompt_that_is_no_text_is_rejected_alone(
    server: TestServer, backend: OpenAIBackend
) -> None:
    attempts = ask(backend, ["fine", "lone \ud800 surrogate"])
    assert [attempts[i][-1].status for i in (0, 1)] == ["ok", "rejected"]
    assert attempts[1][-1].cost_usd == 0.0


def test_quick_policy_differs_from_the_usual_one_only_in_times() -> None:
    usual = RetryPolicy()
    assert (QUICK.max_attempts, QUICK.suspect_after) == (usual.max_attempts, usual.suspect_after)
    with pytest.raises(ParameterError, match="max_attempts"):
        RetryPolicy(max_attempts=0)


def test_the_server_counts_calls_as_they_arrive(server: TestServer) -> None:
    seen: list[Call] = server.calls
    backend = backend_for(server.base_url)
    ask(backend, ["a", "a", "b"])
    backend.close()
    assert sorted(c.seen for c in seen if c.prompt == "a") == [0, 1]
    assert server.max_billed() == 2 and server.summary()["distinct"] == 2
