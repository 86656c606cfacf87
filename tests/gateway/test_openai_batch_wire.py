"""What an endpoint says of batches, read with care: lines, states, codes."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from smartsql.errors import BatchPendingError
from smartsql.gateway.openai_batch_wire import Progress, line, read_outcomes, read_progress
from smartsql.gateway.openai_wire import Failure, Reply

NAME = "a1b2"


def answered(number: object, text: str = "good", **more: Any) -> dict[str, Any]:
    body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], **more}
    return {"custom_id": f"{NAME}-{number}", "response": {"status_code": 200, "body": body}}


def read(*lines: object, n: int = 3) -> dict[int, Reply | Failure]:
    raw = [text if isinstance(text, bytes) else json.dumps(text).encode() for text in lines]
    return read_outcomes(b"\n".join(raw), NAME, n, ("good", "bad"))


def test_answers_come_in_any_order_and_the_first_of_two_counts() -> None:
    found = read(answered(2), answered(0, "bad"), answered(2, "other"))
    texts = {k: o.text for k, o in found.items() if isinstance(o, Reply)}
    assert texts == {2: "good", 0: "bad"}


def test_an_answer_goes_before_an_error_wherever_it_stands() -> None:
    error = {"custom_id": f"{NAME}-1", "response": {"status_code": 500, "body": {}}}
    for lines in ([error, answered(1)], [answered(1), error]):
        assert isinstance(read(*lines)[1], Reply)


ODD_LINES = [
    b"", b"{", b"null", b"[1]", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000,
    b"9" * 5000, {"custom_id": None}, {"custom_id": 1}, {"custom_id": "a1b2-"},
    answered(3), answered(-1), answered("1 "), answered("٣"), answered("9" * 5000),
    {**answered(1), "custom_id": "other-1"},
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD_LINES, ids=range(len(ODD_LINES)))
def test_lines_that_are_nobodys_are_passed_over(odd: object) -> None:
    assert set(read(odd, answered(0))) == {0}


@pytest.mark.parametrize(
    "response",
    [None, 1, [], {}, {"status_code": "200", "body": {}}, {"status_code": 200, "body": None},
     {"status_code": 10**400, "body": {}}, {"status_code": 200, "body": {}},
     {"status_code": 200, "body": {"choices": 7}}],
    ids=range(9),
)  # fmt: skip
def test_a_line_without_an_answer_is_a_failure_that_can_be_tried_again(response: object) -> None:
    (outcome,) = read({"custom_id": f"{NAME}-0", "response": response}).values()
    assert isinstance(outcome, Failure)
    assert outcome.retryable


def test_of_errors_only_numbers_and_codes_are_kept() -> None:
    said = {"message": "cannot answer 'my secret cell'", "code": "my secret cell", "param": "x"}
    found = read(
        {"custom_id": f"{NAME}-0", "response": {"status_code": 400, "body": {"error": said}}},
        {"custom_id": f"{NAME}-1", "response": None, "error": {"code": "batch_expired"}},
        {"custom_id": f"{NAME}-2", "response": None, "error": said},
    )
    assert [o.error for _, o in sorted(found.items()) if isinstance(o, Failure)] == [
        "HTTP 400 in a batch",
        "not answered by its batch (batch_expired)",
        "not answered by its batch",
    ]


@pytest.mark.parametrize("odd", [None, [], "x", {}, {"id": 1, "status": "x"}, {"id": "a"}])
def test_what_is_no_batch_is_none(odd: object) -> None:
    assert read_progress(odd) is None


@pytest.mark.parametrize("end", [None, "soon", -1, 0, float("inf"), float("nan"), 10**30])
def test_an_end_that_is_no_time_is_left_out(end: object) -> None:
    progress = read_progress({"id": "b", "status": "x" * 1000, "expires_at": end, "errors": 7})
    assert progress == Progress("b", "x" * 40)


def test_a_pending_batch_tells_when_it_ends() -> None:
    until = time.time() + 3600
    told = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(until))
    assert f"at the latest {told}" in str(BatchPendingError("big", 7, 3, until))
    assert "at the latest" not in str(BatchPendingError("big", 7, 3, None))


def test_a_request_is_one_line_whatever_its_prompt_holds() -> None:
    body = {"messages": [{"role": "user", "content": 'a\n{"custom_id": 1}\r\n\u2028\ud800'}]}
    raw = line(NAME, 4, body)
    assert raw.count(b"\n") == 1 and raw.endswith(b"\n")
    assert json.loads(raw)["body"] == body
