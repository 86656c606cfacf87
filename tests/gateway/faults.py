"""What the test server says and how it misbehaves."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says; `logprobs` as (token, logprob, [(alternative, logprob), ...])."""

    text: str | None
    logprobs: list[tuple[str, float, list[tuple[str, float]]]] | None = None
    usage: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to misbehave.

    Kinds: "ok"; "status" (an error response, not billed); "reset" (nothing billed), "billed_reset",
    "cut_body" (billed, connection ends in the middle of the body); "truncated" (billed, complete
    HTTP, half of the JSON); "html" (a page with status 200, not billed); "empty", "blank", "cut",
    "refused", "filtered", "no_usage" (billed answers); "slow_body" (billed, dripped over
    `delay_s`); "hang" (billed, never answered); "redirect"; "body" (200 with `body` as it stands).
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
}


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


@dataclass(frozen=True, slots=True)
class Billed:
    model: str
    prompt: str
    prompt_tokens: int
    completion_tokens: int


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
