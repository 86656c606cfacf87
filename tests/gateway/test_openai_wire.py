from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartsql.gateway.key import Key
from smartsql.gateway.openai_private import scrubbed
from smartsql.gateway.openai_wire import (
    Failure,
    Reply,
    judged,
    read_error,
    read_reply,
)
from tests.gateway.asking import ask, backend_for
from tests.gateway.server import Answer, TestServer

LABELS = ("positive", "negative")


def confidence_of(content: object, labels: tuple[str, ...]) -> float | None:
    return judged(content, labels)[0]


def logprobs(*tokens: tuple[str, float, dict[str, float]]) -> dict[str, Any]:
    """Tokens with their probability, and the probabilities of the alternatives."""
    return {
        "content": [
            {
                "token": token,
                "logprob": math.log(p),
                "top_logprobs": [{"token": t, "logprob": math.log(q)} for t, q in top.items()],
            }
            for token, p, top in tokens
        ]
    }


def test_confidence_is_the_share_of_the_answered_label_among_the_labels() -> None:
    top = {"positive": 0.5, " Pos": 0.1, "NEG": 0.15, "neutral": 0.2, "ne": 0.05}
    # 'ne' begins 'negative' only; 'neutral' is no label
    found = confidence_of(logprobs(("positive", 0.5, top)), LABELS)
    assert found == pytest.approx(0.6 / 0.8)
    found = confidence_of(logprobs(("NEG", 0.15, top), ("ative", 1.0, {})), LABELS)
    assert found == pytest.approx(0.2 / 0.8)


def test_every_label_has_its_share_where_the_alternatives_tell_them_apart() -> None:
    top = {"positive": 0.5, " Pos": 0.1, "NEG": 0.15, "neutral": 0.2}
    confidence, scores = judged(logprobs(("positive", 0.5, top)), (*LABELS, "mixed"))
    assert scores == {"positive": 0.8, "negative": 0.2, "mixed": 0.0}
    assert confidence == pytest.approx(0.8)
    # no alternatives, an answer outside the labels, an open answer: nothing about other labels
    assert judged(logprobs(("positive", 0.5, {})), LABELS)[1] is None
    assert judged(logprobs(("giraffe", 0.5, top)), LABELS) == (None, None)
    assert judged(logprobs(("42", 0.5, top)), ())[1] is None


def test_tokens_before_the_label_are_passed_over() -> None:
    content = logprobs(('"', 1.0, {}), ("negative", 0.9, {"negative": 0.9, "positive": 0.05}))
    assert confidence_of(content, LABELS) == pytest.approx(0.9 / 0.95)


def test_an_alternative_that_fits_two_labels_counts_for_neither() -> None:
    labels = ("1", "10", "2")
    content = logprobs(("1", 0.6, {"1": 0.6, "2": 0.3, "10": 0.1}))
    assert confidence_of(content, labels) == pytest.approx(0.6)
    content = logprobs(("1", 0.6, {"1": 0.6, "2": 0.3}), ("0", 0.5, {"0": 0.5}))
    # the answer is 10, which its first token does not tell
    assert confidence_of(content, labels) == pytest.approx(math.sqrt(0.6 * 0.5))


def test_labels_that_begin_alike_fall_back_to_the_mean() -> None:
    labels = ("very good", "very bad")
    content = logprobs(("very", 0.9, {"very": 0.9, "x": 0.1}), (" bad", 0.4, {" bad": 0.4}))
    assert confidence_of(content, labels) == pytest.approx(math.sqrt(0.9 * 0.4))


def test_without_labels_or_alternatives_the_mean_counts() -> None:
    content = logprobs(("It", 0.5, {}), (" is", 0.25, {}), (".", 1.0, {}))
    assert confidence_of(content, ()) == pytest.approx((0.5 * 0.25) ** (1 / 3))
    assert confidence_of(logprobs(("positive", 0.7, {})), LABELS) == pytest.approx(0.7)


def test_an_answer_outside_the_labels_has_no_confidence() -> None:
    assert confidence_of(logprobs(("banana", 0.9, {"banana": 0.9})), LABELS) is None


@pytest.mark.parametrize(
    "missing",
    [
        None,
        {},
        {"content": None},
        {"content": []},
        {"content": [{"token": "positive", "logprob": None}]},
        {"content": [{"token": "positive", "logprob": math.nan}]},
        {"content": ["positive"]},
        {"content": [{"token": " ", "logprob": -0.1}]},
        [1],
    ],
)
def test_missing_or_odd_logprobs_give_no_confidence(missing: object) -> None:
    assert confidence_of(missing, LABELS) is None


def test_impossible_alternatives_count_nothing() -> None:
    content = logprobs(("positive", 1.0, {"positive": 1.0}))
    content["content"][0]["top_logprobs"].append({"token": "negative", "logprob": -math.inf})
    assert confidence_of(content, LABELS) == 1.0


def test_a_backend_asks_for_logprobs_and_reports_the_confidence() -> None:
    entry = ("positive", math.log(0.6), [("positive", math.log(0.6)), ("neg", math.log(0.2))])
    with TestServer(lambda model, prompt: Answer("positive", [entry])) as server:
        scored = backend_for(server.base_url, logprobs=True)
        assert ask(scored, ["p"], LABELS)[0][-1].confidence == pytest.approx(0.75)
        assert ask(scored, ["p"])[0][-1].confidence == pytest.approx(0.6)
        assert server.calls[0].body["logprobs"] is True
        assert server.calls[0].body["top_logprobs"] == 5
        server.unsupported = ("top_logprobs",)
        assert ask(scored, ["p"], LABELS)[0][-1].confidence == pytest.approx(0.6)
        server.unsupported = ("logprobs", "top_logprobs")
        last = ask(scored, ["p"], LABELS)[0][-1]
        assert (last.status, last.confidence) == ("ok", None)
        scored.close()
        plain = backend_for(server.base_url)
        assert ask(plain, ["p"], LABELS)[0][-1].confidence is None
        assert "logprobs" not in server.calls[-1].body
        plain.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "usage", "logprobs", "token", "error", "refusal"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, derandomize=True)
@given(json_values)
def test_no_shape_of_a_response_is_taken_for_granted(value: object) -> None:
    for body in (value, {"choices": [value]}, {"choices": [{"message": value, "logprobs": value}]}):
        outcome = read_reply(json.dumps(body).encode(), "application/json", LABELS)
        assert isinstance(outcome, (Reply, Failure))
        if isinstance(outcome, Reply):
            assert (outcome.text is not None) == (outcome.status == "ok")
    assert isinstance(read_error(400, value, {}), Failure)


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=40))
def test_no_bytes_of_a_response_are_taken_for_granted(body: bytes) -> None:
    assert isinstance(read_reply(body, "", ()), (Reply, Failure))


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": 1.5}, [3], "many"],
)
def test_odd_usage_counts_as_missing(usage: object) -> None:
    body = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}], "usage": usage}
    reply = read_reply(json.dumps(body).encode(), "", ())
    assert isinstance(reply, Reply) and reply.usage is None and reply.text == "yes"


@pytest.mark.parametrize(
    ("error", "named"),
    [
        ({"message": "x", "code": "unsupported_parameter", "param": "max_tokens"}, "max_tokens"),
        (
            {
                "message": "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead."
            },
            "max_tokens",
        ),
        ({"message": "Unsupported value: 'temperature' does not support 0"}, "temperature"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, "seed"),
        ("Unrecognized request argument supplied: top_logprobs", "top_logprobs"),
        ({"message": "maximum context length is 8192 tokens"}, None),
        ({"message": "temperature must be at most 2"}, None),
        ({"message": "Unknown model: logprobster"}, None),
        (None, None),
    ],
)
def test_the_unsupported_parameter_is_found_in_the_endpoints_words(
    error: object, named: str | None
) -> None:
    assert read_error(400, {"error": error}, {}).unsupported == named


def test_errors_are_short_single_lines_without_key_and_prompt() -> None:
    failure = Failure("rejected", 'bad "tell\\nme" key-1234\n' + "z" * 500, False)
    clean = scrubbed(failure, Key.of("key-1234"), "tell\nme").error
    assert clean.startswith("bad [prompt] [key] z") and len(clean) == 200 and "\n" not in clean
