"""What goes over the wire of the batch API, and what comes back.

Pure functions: requests to lines of JSON, lines of JSON to what came of each request. A line may
hold anything, and lines may be missing: then nothing is known of their requests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from smartsql.gateway.openai_wire import Failure, Reply, read_completion, read_error

URL = "/v1/chat/completions"
"""What a batch asks for, under this name at every endpoint."""
MARK = "smartsql"
"""Key of a batch's metadata under which it has our own name for it."""
OVER = frozenset({"completed", "failed", "expired", "cancelled"})
"""States after which nothing more comes of a batch."""
MOST_TIME = 2**37
"""Of an end that an endpoint tells, in seconds since 1970: the year 6325."""
MOST_CHARACTERS = 40
"""Of an endpoint's word for a state."""
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,60}")


@dataclass(frozen=True, slots=True)
class Progress:
    """What an endpoint says of a batch.

    Attributes:
        id: its name at the endpoint.
        status: "validating", "in_progress", "finalizing", "completed", "failed", "expired",
            "cancelling" or "cancelled".
        outputs: names of the files with what came of the requests, in any order.
        expires_at: when it ends at the latest; seconds since 1970, None where untold.
        done: requests with an outcome.
        error: the code of the first error of the batch as a whole.
    """

    id: str
    status: str
    outputs: tuple[str, ...] = ()
    expires_at: float | None = None
    done: int = 0
    error: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in OVER


def line(name: str, number: int, body: Mapping[str, Any]) -> bytes:
    """The line of one request.

    Args:
        name: our own name for the batch.
        number: of the request within it.
    """
    request = {"custom_id": f"{name}-{number}", "method": "POST", "url": URL, "body": body}
    return json.dumps(request).encode() + b"\n"


def read_progress(data: object) -> Progress | None:
    """Make sense of a batch object; None where it is none."""
    if not isinstance(data, dict):
        return None
    id_, status = data.get("id"), data.get("status")
    if not (isinstance(id_, str) and id_ and isinstance(status, str)):
        return None
    files = [data.get("output_file_id"), data.get("error_file_id")]
    expires, counts, errors = data.get("expires_at"), data.get("request_counts"), data.get("errors")
    counts = counts if isinstance(counts, dict) else {}
    done = [n for n in (counts.get("completed"), counts.get("failed")) if type(n) is int]
    listed = errors.get("data") if isinstance(errors, dict) else None
    first = listed[0] if isinstance(listed, list) and listed else None
    return Progress(
        id_,
        status[:MOST_CHARACTERS],
        tuple(name for name in files if isinstance(name, str) and name),
        float(expires) if isinstance(expires, (int, float)) and 0 < expires < MOST_TIME else None,
        sum(done),
        _code(first),
    )


def is_named(data: object, name: str) -> bool:
    """Whether a batch object has our name in its metadata."""
    metadata = data.get("metadata") if isinstance(data, dict) else None
    return isinstance(metadata, dict) and metadata.get(MARK) == name


def read_outcomes(
    raw: bytes, name: str, n: int, labels: Sequence[str]
) -> dict[int, Reply | Failure]:
    """What came of requests, by number; those without a line, or with a broken one, are missing.

    The words of an endpoint may quote a prompt that nobody has at hand here, so that of errors
    only numbers and codes are kept.

    Args:
        n: requests of the batch.
    """
    found: dict[int, Reply | Failure] = {}
    for text in raw.split(b"\n"):
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            continue
        number = _number(data, name)
        if number is None or number >= n or isinstance(found.get(number), Reply):
            continue  # the first answer is the one that counts
        found[number] = _outcome(data, labels)
    return found


def _number(data: object, name: str) -> int | None:
    given = data.get("custom_id") if isinstance(data, dict) else None
    start, _, digits = given.rpartition("-") if isinstance(given, str) else ("", "", "")
    is_ours = start == name and len(digits) < 10 and digits.isascii() and digits.isdigit()
    return int(digits) if is_ours else None


def _outcome(data: dict[str, Any], labels: Sequence[str]) -> Reply | Failure:
    response = data.get("response")
    status = response.get("status_code") if isinstance(response, dict) else None
    body = response.get("body") if isinstance(response, dict) else None
    if status == 200 and isinstance(body, dict):
        outcome = read_completion(body, labels)
        if isinstance(outcome, Failure):
            return replace(outcome, error="its batch has no answer to it")
        return outcome
    if type(status) is int and 400 <= status < 600:
        failure = read_error(status, body, {})
        inner = body.get("error") if isinstance(body, dict) else None
        words = f"HTTP {status} in a batch" + _in_brackets(_code(inner))
        # a line that failed is not billed, whatever the status would mean for a call of its own
        return replace(failure, error=words, may_be_billed=False)
    words = "not answered by its batch" + _in_brackets(_code(data.get("error")))
    return Failure("server_error", words, retryable=True)


def _code(error: object) -> str | None:
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else None


def _in_brackets(code: str | None) -> str:
    return f" ({code})" if code else ""
