"""What goes over the wire of the chat completions API, and what comes back.

Pure functions: bytes and exceptions in, values out. An endpoint may answer with anything, so
nothing about the shape of a response is taken for granted.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smartsql.answers.schemas import ANSWER
from smartsql.gateway import whole
from smartsql.gateway.label_scoring import shares
from smartsql.gateway.openai_body import EndlessBodyError
from smartsql.gateway.openai_dialect import ADAPTABLE, FORMAT
from smartsql.gateway.retry import retry_after_s

_UNSUPPORTED = re.compile(
    r"unsupported|not\s+support|does not support|unrecogni[sz]ed|unknown|unexpected|not permitted|"
    r"not allowed|not available|extra (inputs|fields)|invalid (parameter|argument)",
    re.IGNORECASE,
)
_FORMAT_REFUSED = re.compile(
    r"response[_ ]?format|json[_ ]schema|structured[_ ]outputs?|grammar|guided|\bschema\b",
    re.IGNORECASE,
)
_ENVELOPE = re.compile(rf'\s*(?:```(?:json)?\s*)?\{{\s*"{ANSWER}"\s*:\s*')
"""What stands before the word of an answer that is an object."""
MOST_TOKENS = 10**9
"""Of one call; an endpoint that counts more is mistaken."""
_CUT = frozenset({"length", "max_tokens", "model_length"})
_FILTERED = frozenset({"content_filter", "safety", "recitation", "refusal", "sensitive"})
"""Why a model stopped, in OpenAI's word and in those of endpoints that speak nearly the same."""
_OUTER = " \t\r\n\"'`*_.,:;!?()[]{}<>#-"


@dataclass(frozen=True, slots=True)
class Reply:
    """A try at which the model finished; the status is one of `DELIVERED`.

    Attributes:
        text: the answer where the status is "ok".
        usage: prompt and completion tokens as the endpoint counted them.
        written: all text that came back, to bound the cost where the usage is missing.
        scores: probability of each label, where the alternatives tell them apart.
    """

    status: str
    text: str | None
    written: str
    usage: tuple[int, int] | None
    served_by: str | None
    confidence: float | None
    scores: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A try at which it did not.

    Attributes:
        may_be_billed: the model may have worked before it failed.
        hopeless: no other request to this endpoint will fare better.
        unsupported: the parameter that the endpoint does not take.
        wait_s: how long it asks to be left alone.
    """

    status: str
    error: str
    retryable: bool
    may_be_billed: bool = False
    hopeless: bool = False
    unsupported: str | None = None
    wait_s: float | None = None


def read_reply(body: bytes, content_type: str, labels: Sequence[str]) -> Reply | Failure:
    """Make sense of the body of a response with status 200."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        start = body[:64].lstrip().lower()
        if "html" in content_type or start.startswith(b"<"):
            # no model wrote this; most often base_url points at a web page
            return Failure("malformed", "the endpoint answered with a web page", True)
        return Failure("malformed", "the endpoint's JSON is incomplete", True, may_be_billed=True)
    if not isinstance(data, dict):
        return Failure("malformed", "the endpoint's JSON is not an object", True, True)
    return read_completion(data, labels)


def read_completion(data: dict[str, Any], labels: Sequence[str]) -> Reply | Failure:
    """Make sense of the object that such a body holds."""
    choices = data.get("choices")
    if not isinstance(choices, list):
        return _embedded_error(data)
    choice = choices[0] if choices and isinstance(choices[0], dict) else {}
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    content, refusal = message.get("content"), message.get("refusal")
    text = whole(content) if isinstance(content, str) else ""
    finish = str(choice.get("finish_reason")).casefold()
    if finish == "error":
        return Failure("server_error", "the model stopped with an error", True, may_be_billed=True)
    status = _delivered(text, refusal, finish)
    served_by = data.get("model")
    confidence, scores = judged(choice.get("logprobs"), labels) if status == "ok" else (None, None)
    return Reply(
        status,
        text if status == "ok" else None,
        text or (whole(refusal) if isinstance(refusal, str) else ""),
        _usage(data.get("usage")),
        whole(served_by) if isinstance(served_by, str) and served_by else None,
        confidence,
        scores,
    )


def _delivered(text: str, refusal: object, finish: str) -> str:
    if refusal or finish in _FILTERED:
        return "refused"
    if finish in _CUT:
        return "cut"
    return "ok" if text.strip() else "empty"


def _embedded_error(data: dict[str, Any]) -> Failure:
    """Some gateways wrap the error of the endpoint behind them into a status of 200."""
    error = data.get("error")
    if isinstance(error, dict):
        code = error.get("code")
        status = int(code) if isinstance(code, int) and 400 <= code < 600 else 500
        return read_error(status, error, {})
    return Failure("malformed", "the endpoint's JSON has no choices", True, may_be_billed=True)


def _usage(usage: object) -> tuple[int, int] | None:
    if not isinstance(usage, dict):
        return None
    counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if all(type(count) is int and 0 <= count <= MOST_TOKENS for count in counts):
        return counts[0], counts[1]  # type: ignore[return-value]
    return None


def read_error(status: int, error: object, headers: Mapping[str, str]) -> Failure:
    """Make sense of a response with another status than 200.

    Args:
        error: the decoded body or its `error` object, or text.
    """
    said, code, parameter = _words(error)
    words = f"HTTP {status}" + (f": {said}" if said else "")
    wait = retry_after_s(headers)
    if status == 429:
        return _refused_for_limits(said, code, words, wait)
    if status == 408:
        return Failure("timeout", words, retryable=True, wait_s=wait)
    if status >= 500:
        # a proxy gave up on a model that may have gone on working
        billed = status in (504, 524)
        return Failure("server_error", words, True, may_be_billed=billed, wait_s=wait)
    if status in (400, 422):
        unsupported = _unsupported(said, code, parameter)
        return Failure("rejected", words, retryable=False, unsupported=unsupported)
    if 300 <= status < 400:
        words += " (redirects are not followed: set base_url to the final address)"
    return Failure("rejected", words, retryable=status == 409, hopeless=status != 409, wait_s=wait)


def _refused_for_limits(said: str, code: str, words: str, wait_s: float | None) -> Failure:
    if code == "insufficient_quota" or "insufficient_quota" in said:
        return Failure("rejected", words, retryable=False, hopeless=True)
    if said.lower().startswith("request too large"):
        return Failure("rejected", words, retryable=False)  # it will never fit into a minute
    return Failure("rate_limited", words, retryable=True, wait_s=wait_s)


def _words(error: object) -> tuple[str, str, str]:
    if isinstance(error, dict):
        inner = error.get("error", error)
        if isinstance(inner, dict):
            message = inner.get("message") or inner.get("detail") or inner
            text = message if isinstance(message, str) else json.dumps(message, default=str)
            return text, str(inner.get("code") or ""), str(inner.get("param") or "")
        return str(inner), "", ""
    text = error if isinstance(error, str) else ""
    return ("a web page" if text.lstrip().startswith("<") else text), "", ""


def _unsupported(said: str, code: str, parameter: str) -> str | None:
    """The parameter that an endpoint does not take, None where it refused for another reason."""
    if parameter.startswith(FORMAT):
        return FORMAT
    if code.startswith("unsupported") or _UNSUPPORTED.search(said):
        if parameter in ADAPTABLE:
            return parameter
        places = {name: re.search(rf"\b{name}\b", said) for name in (*ADAPTABLE, FORMAT)}
        named = {name: found.start() for name, found in places.items() if found}
        # "max_tokens is not supported, use max_completion_tokens": the first one is meant
        if named:
            return min(named, key=named.__getitem__)
    # each endpoint has words of its own for a schema that it cannot work with
    return FORMAT if _FORMAT_REFUSED.search(said) else None


def connection_failure(error: BaseException) -> Failure:
    """Make sense of an exception without a response: did the request get through?

    The client library reports most of these as timeouts, whatever they were, so the exceptions
    behind it are asked.
    """
    import aiohttp

    causes = _causes(error)
    endless = next((cause for cause in causes if isinstance(cause, EndlessBodyError)), None)
    if endless is not None:
        return Failure("malformed", str(endless), True, may_be_billed=True)
    lost = "connection lost before the answer"
    kinds: list[tuple[tuple[type[BaseException], ...], Failure]] = [
        # a name that is not found, a refused connection, a bad certificate: nothing was sent
        (
            (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError),
            Failure("connection", f"cannot connect ({_brief(causes)})", True),
        ),
        (
            (aiohttp.InvalidURL, UnicodeError),
            Failure("rejected", f"cannot be sent ({_brief(causes)})", False),
        ),
        (
            (aiohttp.ClientResponseError,),
            Failure("malformed", "the endpoint does not speak HTTP", True, may_be_billed=True),
        ),
        (
            (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError),
            Failure("connection", lost, True, may_be_billed=True),
        ),
        (
            (aiohttp.ClientPayloadError,),
            Failure("connection", "connection lost within the answer", True, may_be_billed=True),
        ),
        ((TimeoutError,), Failure("timeout", "no answer in time", True, may_be_billed=True)),
    ]
    for types, failure in kinds:
        if any(isinstance(cause, types) for cause in causes):
            return failure
    return Failure("connection", f"connection failed ({_brief(causes)})", True, may_be_billed=True)


def _causes(error: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes


def _brief(causes: Sequence[BaseException]) -> str:
    root = causes[-1]
    reason = getattr(root, "strerror", None)
    return f"{type(root).__name__}: {reason}" if reason else type(root).__name__


Judged = tuple[float | None, dict[str, float] | None]
"""Confidence in the answer, and the probability of each label; None where unknown."""


def judged(logprobs: object, labels: Sequence[str]) -> Judged:
    """The model's probability of its own answer, in [0, 1]; None where it gives none.

    With labels: the probability of the label that the first token chose, renormalised over the
    labels. An alternative counts for a label when it begins that label and no other one. Where
    the alternatives do not tell the labels apart (none given, or all begin alike), and without
    labels: the geometric mean of the probabilities of the answer's tokens, and nothing about the
    other labels. An answer outside the labels has none.

    Args:
        logprobs: the `logprobs` object of a choice, as it came.
    """
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    tokens = _tokens(content)
    if not tokens:
        return None, None
    if labels:
        tokens = _within_envelope(tokens)
        first = next((entry for entry in tokens if _bare(entry[0])), None)
        if first is None:
            return None, None
        alternatives = _tokens(first[2])
        chosen = _label_of(first[0], labels)
        said = _label_of("".join(token for token, _, _ in tokens), labels)
        if chosen is None and said is None:
            return None, None  # an answer outside the labels
        if alternatives and chosen is not None and said in (chosen, None):
            return _renormalised(chosen, first, alternatives, labels)
    mean = sum(logprob for _, logprob, _ in tokens) / len(tokens)
    return min(1.0, math.exp(min(mean, 0.0))), None


def _within_envelope(
    tokens: list[tuple[str, float, object]],
) -> list[tuple[str, float, object]]:
    """The tokens of the word in an answer that is an object; all tokens of another answer."""
    envelope = _ENVELOPE.match("".join(token for token, _, _ in tokens))
    if envelope is None:
        return tokens
    end = 0
    for position, (token, _, _) in enumerate(tokens):
        end += len(token)
        if end > envelope.end():
            return tokens[position:]
    return tokens


def _renormalised(
    chosen: str,
    first: tuple[str, float, object],
    alternatives: list[tuple[str, float, object]],
    labels: Sequence[str],
) -> Judged:
    mass = dict.fromkeys(labels, 0.0)
    tokens = {token: logprob for token, logprob, _ in alternatives}
    tokens.setdefault(first[0], first[1])
    for token, logprob in tokens.items():
        label = _label_of(token, labels)
        if label is not None:
            mass[label] += math.exp(min(logprob, 0.0))
    total = sum(mass.values())
    return (mass[chosen] / total if total > 0.0 else None), shares(mass)


def _tokens(content: object) -> list[tuple[str, float, object]]:
    entries = []
    for entry in content if isinstance(content, list) else []:
        if isinstance(entry, dict):
            token, logprob = entry.get("token"), entry.get("logprob")
            if isinstance(token, str) and isinstance(logprob, (int, float)):
                try:
                    value = float(logprob)
                except OverflowError:
                    value = math.nan
                if math.isnan(value):
                    return []
                entries.append((token, value, entry.get("top_logprobs")))
    return entries


def _bare(text: str) -> str:
    return text.strip(_OUTER).casefold()


def _could_be(token: str, label: str) -> bool:
    start, whole = _bare(token), _bare(label)
    return bool(start) and (whole.startswith(start) or start == whole)


def _label_of(token: str, labels: Sequence[str]) -> str | None:
    exact = [label for label in labels if _bare(label) == _bare(token) != ""]
    found = exact or [label for label in labels if _could_be(token, label)]
    return found[0] if len(found) == 1 else None
