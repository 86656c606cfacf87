from __future__ import annotations

import time
from email.utils import formatdate
from queue import SimpleQueue
from threading import Event

import pytest

from smartsql.gateway import DELIVERED, Attempts
from smartsql.gateway.limits import Slots
from smartsql.gateway.openai_api import OpenAIBackend
from tests.gateway.asking import PRICE, ask, backend_for, collect, requests_for
from tests.gateway.server import Answer, Call, Fault, TestServer

PROMPT = "Is this good?"


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


def test_no_requests_is_no_work(backend: OpenAIBackend) -> None:
    out: Attempts = SimpleQueue()
    backend.start([], (), out, Event())
    assert out.empty()


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
    groups: list[int] = []
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


def test_the_server_counts_calls_as_they_arrive(server: TestServer) -> None:
    seen: list[Call] = server.calls
    backend = backend_for(server.base_url)
    ask(backend, ["a", "a", "b"])
    backend.close()
    assert sorted(c.seen for c in seen if c.prompt == "a") == [0, 1]
    assert server.max_billed() == 2 and server.summary()["distinct"] == 2
