"""What the test server writes: answers and errors in OpenAI's form."""

from __future__ import annotations

import json
from typing import Any

from tests.gateway.faults import Answer, Call, Fault, wrong_usage


def answer_body(call: Call, answer: Answer, kind: str) -> tuple[str, tuple[int, int]]:
    """The body of an answer with a fault of this kind, and the tokens that are billed for it."""
    text, finish, refusal = answer.text, "stop", None
    if kind == "empty":
        text = None
    elif kind == "blank":
        text = " \n"
    elif kind == "cut":
        finish = "length"
    elif kind == "filtered":
        text, finish = None, "content_filter"
    elif kind == "refused":
        text, refusal = None, "I cannot help with that."
    tokens = answer.usage or (
        len(call.prompt.encode()) // 4 + 7,
        len((text or "").encode()) // 4 + 1,
    )
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text, "refusal": refusal},
        "logprobs": None,
    }
    if answer.logprobs is not None and call.body.get("logprobs"):
        choice["logprobs"] = _logprobs(answer, call.body.get("top_logprobs", 0))
    payload: dict[str, Any] = {
        "id": f"chatcmpl-{call.serial}",
        "object": "chat.completion",
        "created": 1,
        "model": answer.served_by or f"{call.model}-2026-01-01",
        "choices": [choice],
    }
    usage = wrong_usage(kind, *tokens)
    if usage is not None:
        payload["usage"] = usage
    return json.dumps(payload), tokens


def _logprobs(answer: Answer, top: int) -> dict[str, Any]:
    def entry(token: str, logprob: float) -> dict[str, Any]:
        return {"token": token, "logprob": logprob, "bytes": list(token.encode())}

    return {
        "content": [
            entry(token, lp) | {"top_logprobs": [entry(t, x) for t, x in alternatives[:top]]}
            for token, lp, alternatives in answer.logprobs or []
        ]
    }


def error_body(message: str, code: str | None, param: str | None) -> str:
    return json.dumps(
        {"error": {"message": message, "type": "error", "code": code, "param": param}}
    )


def waiting_headers(fault: Fault) -> dict[str, str]:
    headers = {}
    if fault.retry_after_s is not None:
        headers["Retry-After"] = str(fault.retry_after_s)
    if fault.retry_after_ms is not None:
        headers["retry-after-ms"] = str(fault.retry_after_ms)
    return headers
