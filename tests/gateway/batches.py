"""The batch API of the test server: files, batches with scripted states, a bill of its own.

A batch is worked off when it is looked at: after `looks` of them, unless `hold` is set. What its
lines come to is decided by a `Script`; a line that is answered is billed once, in `bill`.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.gateway.faults import Answer, Billed, Call, Fault
from tests.gateway.http1 import Connection, HTTPRequest
from tests.gateway.payloads import answer_body, error_body, waiting_headers

if TYPE_CHECKING:
    from tests.gateway.server import TestServer


@dataclass(frozen=True, slots=True)
class Script:
    """What becomes of a batch.

    `status`: in which it ends. `line`: what becomes of a line, by (place, prompt): "ok"; "missing"
    (no line at all); a number such as "500" (a line with that status in the error file); "expired"
    (a line without a response); "body" (status 200 with an error in its body); "broken" (not
    JSON); "twice" (answered by two lines, billed once); any other word is a fault of
    `answer_body`. `looks`: how often it is looked at before it is over.
    """

    status: str = "completed"
    line: Callable[[int, str], str] = lambda place, prompt: "ok"
    looks: int = 1


@dataclass
class Batch:
    id: str
    file: str
    metadata: dict[str, str]
    window: str
    requests: list[dict[str, Any]]
    script: Script
    status: str = "validating"
    looked: int = 0
    output: str | None = None
    errors: str | None = None
    done: int = 0
    at: float = field(default_factory=time.time)

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id, "object": "batch", "endpoint": "/v1/chat/completions",
            "status": self.status, "input_file_id": self.file, "output_file_id": self.output,
            "error_file_id": self.errors, "metadata": self.metadata,
            "completion_window": self.window, "expires_at": int(self.at + 86_400),
            "request_counts": {"total": len(self.requests), "completed": self.done, "failed": 0},
        }  # fmt: skip


class BatchDesk:
    """The batch API; attributes may be changed while it runs.

    Attributes:
        hold: no batch ends while it is set.
        scripts: of the next batches; those without one are worked off.
        faults: what happens to the next requests, by (method, first part of the path): faults of
            kind "status", "reset" (nothing is done), "done_reset" (it is done, the answer is lost).
        arrived: requests by (method, first part of the path).
    """

    def __init__(self, server: TestServer) -> None:
        self._server = server
        self.hold = threading.Event()
        self.scripts: list[Script] = []
        self.faults: dict[tuple[str, str], list[Fault]] = {}
        self.files: dict[str, bytes] = {}
        self.made: list[Batch] = []
        self.bill: list[Billed] = []
        self.arrived: Counter[tuple[str, str]] = Counter()

    def multiplicity(self) -> Counter[tuple[str, str]]:
        return Counter((b.model, b.prompt) for b in self.bill)

    def billed_usd(self, prices: dict[str, float], discount: float = 0.5) -> float:
        """By prices per million tokens, in and out."""
        return sum(
            (b.prompt_tokens + b.completion_tokens) * prices[b.model] * (1 - discount) / 1e6
            for b in self.bill
        )

    def handles(self, to: Connection, request: HTTPRequest) -> bool:
        """Answer a request of the batch API; False for any other."""
        path, _, query = request.path.partition("?")
        found = re.fullmatch(r"/v1/(files|batches)(?:/([^/]+))?(/content)?", path)
        if found is None:
            return False
        kind, id_ = found[1], found[2]
        self.arrived[request.method, kind] += 1
        waiting = self.faults.get((request.method, kind))
        fault = waiting.pop(0) if waiting else Fault("ok")
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._server.api_key is not None and given != self._server.api_key:
            fault = Fault("status", status=401, code="invalid_api_key", message=f"No: {given}")
        if fault.kind == "status":
            body = error_body(fault.message, fault.code, fault.param)
            to.respond(fault.status, body, waiting_headers(fault))
        elif fault.kind == "reset":
            to.abort()
        else:
            status, text = self._done(request, kind, id_, query)
            if fault.kind == "done_reset":
                to.abort()
            else:
                to.respond(status, text)
        return True

    def _done(
        self, request: HTTPRequest, kind: str, id_: str | None, query: str
    ) -> tuple[int, str]:
        if kind == "files":
            return self._file(request, id_)
        if request.method == "POST":
            return self._create(json.loads(request.body))
        if id_ is None:
            return 200, self._page(query)
        batch = next((b for b in self.made if b.id == id_), None)
        if batch is None:
            return 404, error_body("no such batch", None, None)
        self._work(batch)
        return 200, json.dumps(batch.as_json())

    def _file(self, request: HTTPRequest, id_: str | None) -> tuple[int, str]:
        if request.method == "POST":
            boundary = request.headers["content-type"].partition("boundary=")[2].strip('"')
            parts = request.body.split(b"--" + boundary.encode())
            content = next(part for part in parts if b'name="file"' in part)
            made = f"file-{len(self.files)}"
            self.files[made] = content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
            return 200, json.dumps({"id": made, "object": "file", "purpose": "batch"})
        if id_ not in self.files:
            return 404, error_body("no such file", None, None)
        if request.method == "DELETE":
            del self.files[id_]
            return 200, json.dumps({"id": id_, "deleted": True})
        return 200, self.files[id_].decode()

    def _create(self, body: dict[str, Any]) -> tuple[int, str]:
        file = body["input_file_id"]
        if file not in self.files:
            return 400, error_body("no such file", None, None)
        requests = [json.loads(line) for line in self.files[file].splitlines()]
        assert all(r["url"] == body["endpoint"] == "/v1/chat/completions" for r in requests)
        assert len({r["custom_id"] for r in requests}) == len(requests)
        batch = Batch(
            f"batch_{len(self.made)}", file, body.get("metadata", {}), body["completion_window"],
            requests, self.scripts.pop(0) if self.scripts else Script(),
        )  # fmt: skip
        self.made.append(batch)
        return 200, json.dumps(batch.as_json())

    def _page(self, query: str) -> str:
        newest = [b.as_json() for b in reversed(self.made)]
        after = re.search(r"after=([^&]+)", query)
        if after is not None:
            newest = newest[[b["id"] for b in newest].index(after[1]) + 1 :]
        page = newest[:2]  # small pages, so that a client must turn them
        return json.dumps({"object": "list", "data": page, "has_more": len(newest) > 2})

    def _work(self, batch: Batch) -> None:
        batch.looked += 1
        if batch.output is not None or batch.errors is not None or batch.status in _OVER:
            return
        if self.hold.is_set() or batch.looked < batch.script.looks:
            batch.status = "in_progress"
            return
        lines: tuple[list[str], list[str]] = [], []
        if batch.script.status != "failed":  # it was never begun
            for place, request in enumerate(batch.requests):
                self._line(batch, place, request, *lines)
        batch.status, batch.done = batch.script.status, len(lines[0])
        if lines[0]:
            batch.output = self._kept("\n".join(reversed(lines[0])) + "\n")
        if lines[1]:
            batch.errors = self._kept("\n".join(lines[1]) + "\n")

    def _kept(self, text: str) -> str:
        name = f"file-{len(self.files) + 1000 * (1 + len(self.made))}"
        self.files[name] = text.encode()
        return name

    def _line(
        self,
        batch: Batch,
        place: int,
        request: dict[str, Any],
        answered: list[str],
        failed: list[str],
    ) -> None:
        body, server = request["body"], self._server
        prompt = body["messages"][-1]["content"]
        kind = batch.script.line(place, prompt)
        head = {"id": f"batch_req_{place}", "custom_id": request["custom_id"]}
        if kind == "missing":
            return
        if kind == "expired":
            error = {"code": "batch_expired", "message": "This request could not be executed."}
            failed.append(json.dumps({**head, "response": None, "error": error}))
        elif kind.isdigit():
            said = json.loads(error_body(f"cannot answer {prompt!r}", "server_error", None))
            response = {"status_code": int(kind), "body": said}
            failed.append(json.dumps({**head, "response": response, "error": None}))
        elif kind == "broken":
            failed.append('{"custom_id": ')
        else:
            call = Call(place, body["model"], prompt, 0, body, {})
            said = server.reply(call) if server.reply else server.answer(call.model, prompt)
            answer = said if isinstance(said, Answer) else Answer(said)
            payload, usage = answer_body(call, answer, kind)
            if kind == "body":
                payload, usage = error_body("an error", None, None), (0, 0)
            else:
                self.bill.append(Billed(call.model, prompt, *usage, kind, delivered=True))
            response = {"status_code": 200, "body": json.loads(payload)}
            line = json.dumps({**head, "response": response, "error": None})
            answered += [line] * (2 if kind == "twice" else 1)


_OVER = ("completed", "failed", "expired", "cancelled")
