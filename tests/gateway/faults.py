"""What the test server says and how it misbehaves."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says; `logprobs` as (token, logprob, [(alternative, logprob), ...]).

    `served_by`: the model id in the answer; made of the one that was asked for where it is None.
    """

    text: str | None
    logprobs: list[tuple[str, float, list[tuple[str, float]]]] | None = None
    usage: tuple[int, int] | None = None
    served_by: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to misbehave.

    Kinds: "ok"; "status" (an error response, not billed); "reset" (nothing billed), "billed_reset",
    "cut_body" (billed, connection ends in the middle of the body); "truncated" (billed, complete
    HTTP, half of the JSON); "html" (a page with status 200, not billed); "empty", "blank", "cut",
    "refused", "filtered", "no_usage" (billed answers); "late" (billed, the answer comes `delay_s`
    after its time, so that later calls end before it); "slow_body" (billed, the second half of the
    body follows after `delay_s`); "endless" (billed, a body that is sent as fast as it is read and
    never ends), "dripping" (the same, a byte each `delay_s`); "hang" (billed, never answered);
    "redirect"; "body" (200 with `body` as it stands). "usage_zero", "usage_negative",
    "usage_huge", "usage_text", "usage_fraction" and "usage_missing" are billed rightly and
    reported wrongly.
    """

    kind: str
    status: int = 500
    retry_after_s: float | str | None = None
    retry_after_ms: float | None = None
    code: str | None = None
    param: str | None = None
    message: str = "scripted failure"
    delay_s: float = 0.0
    body: str = ""
    location: str = ""


NAMED = {
    "429": Fault("status", status=429, code="rate_limit_exceeded"),
    "429+0": Fault("status", status=429, code="rate_limit_exceeded", retry_after_s=0),
    "quota": Fault("status", status=429, code="insufficient_quota"),
    "401": Fault("status", status=401, code="invalid_api_key"),
    "403": Fault("status", status=403),
    "404": Fault("status", status=404, code="model_not_found"),
    **{str(n): Fault("status", status=n) for n in (400, 408, 409, 422, 500, 502, 503, 504, 529)},
    "429+1s": Fault("status", status=429, code="rate_limit_exceeded", retry_after_s=1),
    "429+ms": Fault("status", status=429, code="rate_limit_exceeded", retry_after_ms=50),
    "503+0": Fault("status", status=503, retry_after_s=0),
    "late": Fault("late", delay_s=0.1),
    "slow_body": Fault("slow_body", delay_s=0.05),
    "dripping": Fault("dripping", delay_s=0.01),
}

DELIVERED = ("429", "429+ms", "500", "502", "503", "504", "408", "reset", "late", "slow_body")
"""Faults after which the same call, made again, gets its answer, and that lose no money."""
LOSING = ("billed_reset", "cut_body", "truncated", "html", "endless")
"""The same, where the client must take money for lost ("html": it need not)."""
USAGES = ("no_usage", "usage_zero", "usage_negative", "usage_huge", "usage_text",
          "usage_fraction", "usage_missing")  # fmt: skip
"""Answers whose price the client must guess."""
UNANSWERED = ("empty", "blank", "cut", "refused", "filtered")
"""What a model finished and answered nothing with."""


def wrong_usage(kind: str, prompt_tokens: int, completion_tokens: int) -> dict[str, Any] | None:
    """The usage that goes out in an answer with a fault of this kind."""
    right: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    return {
        "no_usage": None,
        "usage_zero": dict.fromkeys(right, 0),
        "usage_negative": {name: -count for name, count in right.items()},
        "usage_huge": dict.fromkeys(right, 10**9),
        "usage_text": {name: str(count) for name, count in right.items()},
        "usage_fraction": {name: count + 0.5 for name, count in right.items()},
        "usage_missing": {"total_tokens": right["total_tokens"]},
    }.get(kind, right)


def fault_of(fault: str | Fault | None) -> Fault:
    if isinstance(fault, Fault):
        return fault
    return NAMED.get(fault or "ok") or Fault(fault or "ok")


@dataclass(slots=True)
class Call:
    """One request as it arrived."""

    serial: int
    model: str
    prompt: str
    seen: int  # how often this (model, prompt) arrived before
    body: dict[str, Any]
    headers: dict[str, str]
    at: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class Billed:
    """A line of the server's bill.

    `kind`: of the fault with which it went out.
    `delivered`: the whole answer was handed to a connection that was still open, in a form that a
    client can read.
    """

    model: str
    prompt: str
    prompt_tokens: int
    completion_tokens: int
    kind: str = "ok"
    delivered: bool = False


def mixture(shares: dict[str, float], seed: int = 0) -> Callable[[Call], str | None]:
    """Faults at random, decided by (seed, model, prompt, try): the same in whatever order."""

    def choose(call: Call) -> str | None:
        key = f"{seed}|{call.model}|{call.prompt}|{call.seen}".encode()
        draw = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) / 2**64
        for kind, share in shares.items():
            if draw < share:
                return kind
            draw -= share
        return None

    return choose
