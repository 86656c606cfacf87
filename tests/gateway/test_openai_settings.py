from __future__ import annotations

import json
import logging
import math
import time

import pytest

from smartsql.errors import ConfigError, ParameterError
from smartsql.gateway.limits import Slots
from smartsql.gateway.retry import RetryPolicy
from tests.gateway.asking import QUICK, ask, backend_for
from tests.gateway.server import Fault, TestServer

PROMPT = "Is this good?"


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
    for key in ("stream", "n", "logprobs", "messages"):
        with pytest.raises(ConfigError, match=repr(key)):
            backend_for(url, parameters={key: 1})
    for value in (math.nan, time.gmtime, {1, 2}):
        with pytest.raises(ConfigError, match="cannot be sent as JSON"):
            backend_for(url, parameters={"temperature": value})
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


def test_quick_policy_differs_from_the_usual_one_only_in_times() -> None:
    usual = RetryPolicy()
    assert (QUICK.max_attempts, QUICK.suspect_after) == (usual.max_attempts, usual.suspect_after)
    with pytest.raises(ParameterError, match="max_attempts"):
        RetryPolicy(max_attempts=0)


def test_a_variant_is_the_same_caller_with_other_parameters() -> None:
    backend = backend_for("http://127.0.0.1:1/v1", requests_per_minute=60.0, system="Be brief.")
    parameters = {"temperature": 1.0}
    other = backend.variant("m verification", parameters, logprobs=True)
    alone = backend_for("http://127.0.0.1:1/v1", parameters=parameters, system="Be brief.")
    assert other.identity(()) == alone.identity(()) != backend.identity(())
    assert (other.name, other.price) == ("m verification", backend.price)
    for shared in ("_pace", "_places", "_congestion", "_health", "_runs", "_slots"):
        assert getattr(other, shared) is getattr(backend, shared)


def test_a_refused_key_ends_the_calls_of_both_and_both_may_begin_again() -> None:
    with TestServer(api_key="right") as server:
        backend = backend_for(server.base_url, api_key="wrong")
        other = backend.variant("m verification", {}, logprobs=True)
        assert ask(backend, ["a"])[0][-1].status == "rejected"
        assert ask(other, ["a"])[0][-1].status == "rejected"
        assert len(server.calls) <= 2
        other.close()
        backend.close()
        assert ask(other, ["b"])[0][-1].status == "rejected"  # it may be started again
        other.close()
