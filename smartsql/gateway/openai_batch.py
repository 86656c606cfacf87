"""Batches of calls to an OpenAI-compatible endpoint: half the price, within a day.

A batch is a file of requests that the endpoint works off when it has time. It is uploaded, a batch
is made of it, and what came of its requests is downloaded when it is over. Whatever becomes of this
process, the endpoint goes on, so everything that is needed to take the answers later is kept in the
ledger (`ledger.batches`) before the endpoint can begin.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

from smartsql.errors import CancelledError
from smartsql.gateway import Attempt, Price, Request
from smartsql.gateway.key import Key
from smartsql.gateway.loop import shared_loop
from smartsql.gateway.openai_attempts import delivered, failed
from smartsql.gateway.openai_batch_wire import (
    MARK,
    URL,
    Progress,
    is_named,
    line,
    read_outcomes,
    read_progress,
)
from smartsql.gateway.openai_client import connect
from smartsql.gateway.openai_dialect import FORMAT, Dialect
from smartsql.gateway.openai_meter import Meter
from smartsql.gateway.openai_private import scrubbed, without_key
from smartsql.gateway.openai_wire import Failure, Reply, connection_failure, read_error
from smartsql.gateway.prices import discounted

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")

MOST_CALLS = 50_000
MOST_BYTES = 180 * 2**20
"""Of one batch; OpenAI takes 200 MB."""
MOST_OUTPUT_BYTES = 2**30
TIMEOUT_S = 600.0
"""For a file on its way."""
WATCH_S = 0.05
TRIES = 4
PAUSE_S = 0.25
PAGES = 10
"""Of the list of batches, newest first, that are searched for one of ours."""


@dataclass(frozen=True, slots=True)
class BatchTerms:
    """When and how calls go through the batch API.

    Attributes:
        at_least: fewer calls are made one by one.
        discount: part of the price that is taken off.
        window: within which the endpoint is to answer.
        wait_s: how long a statement waits for a batch; None for as long as it takes.
    """

    at_least: int = 500
    discount: float = 0.5
    window: str = "24h"
    wait_s: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What must be known of a batch to understand its answers, in another process too.

    Attributes:
        name: our own name for it.
        price: USD per million tokens.
        labels: among which its answers choose.
        judged: confidences were asked for.
        longest: most tokens of an answer.
        sizes: bytes of each request.
    """

    name: str
    price: Price
    labels: tuple[str, ...]
    judged: bool
    longest: int
    sizes: Sequence[int]


class RefusedError(Exception):
    """The endpoint did not do what it was asked to.

    Attributes:
        failure: why.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.error)
        self.failure = failure


class BatchEndpoint:
    """The batch API of one model's endpoint; its methods wait, and end early when cancelled.

    Args:
        dialect: makes the bodies of requests.
        meter: knows how large they are; its price is that of single calls.
    """

    def __init__(
        self, name: str, base_url: str, key: Key | None, dialect: Dialect, meter: Meter
    ) -> None:
        self.base_url = base_url
        self._name = name
        self._key = key
        self._dialect = dialect
        self._meter = meter
        self._client: AsyncOpenAI | None = None
        self._connecting = threading.Lock()

    def __repr__(self) -> str:
        return f"BatchEndpoint({self._name!r}, base_url={self.base_url!r})"

    # --- before it is made ---------------------------------------------------------------------

    def price(self, terms: BatchTerms) -> Price:
        """What tokens cost in a batch."""
        return discounted(self._meter.price, terms.discount)

    def worst_cost_usd(self, request: Request, price: Price) -> float:
        """What a call of a batch costs at most."""
        return price.cost_usd(*self._meter.worst_tokens(request))

    def facts(
        self, name: str, price: Price, labels: tuple[str, ...], requests: Sequence[Request]
    ) -> Facts:
        """What is to be kept of a batch."""
        sizes = [self._meter.n_bytes(request) for request in requests]
        judged = "logprobs" in self._dialect.sent
        return Facts(name, price, labels, judged, self._meter.longest, sizes)

    def line(self, name: str, number: int, request: Request) -> bytes:
        """A request as a line of the file."""
        return line(
            name, number, self._dialect.body(request.prompt, self._dialect.form(request.form))
        )

    def adapt(self, failures: Sequence[Failure]) -> None:
        """Leave out from now on what the endpoint told not to take."""
        for name in sorted({f.unsupported for f in failures if f.unsupported}):
            if name == FORMAT:
                self._dialect.refuse_forms()
            else:
                self._dialect.adapt(name, self._dialect.sent)

    # --- at the endpoint -----------------------------------------------------------------------

    def upload(self, name: str, lines: Sequence[bytes], cancelled: Event) -> str:
        """Hand over the file of requests; its name at the endpoint.

        Raises:
            RefusedError: the endpoint does not take it.
            CancelledError: the statement was interrupted.
        """
        content = b"".join(lines)

        async def work(client: AsyncOpenAI) -> str:
            file = await client.files.create(
                file=(f"{name}.jsonl", content, "application/jsonl"), purpose="batch"
            )
            if not isinstance(file.id, str) or not file.id:
                raise RefusedError(Failure("malformed", "the endpoint named no file", False))
            return file.id

        return self._wait(self._tried(work), cancelled)

    def create(self, name: str, file: str, window: str, cancelled: Event) -> Progress:
        """Have a batch made of a file. It is tried once: made twice, it would be paid twice.

        Raises: as `upload`.
        """
        body = {
            "input_file_id": file,
            "endpoint": URL,
            "completion_window": window,
            "metadata": {MARK: name},
        }
        return self._wait(self._tried(self._batch("POST", "/batches", body), tries=1), cancelled)

    def find(self, name: str, cancelled: Event) -> Progress | None:
        """The batch to which we gave this name, None if there is none. Raises: as `upload`."""

        async def work(client: AsyncOpenAI) -> Progress | None:
            after = ""
            for _ in range(PAGES):
                raw = await self._raw(client, "GET", f"/batches?limit=100{after}")
                page = _json(raw)
                listed = page.get("data") if isinstance(page, dict) else None
                batches = listed if isinstance(listed, list) else []
                for data in batches:
                    if is_named(data, name):
                        return read_progress(data)
                if not batches or not page.get("has_more") or not isinstance(batches[-1], dict):
                    return None
                after = f"&after={batches[-1].get('id')}"
            return None

        return self._wait(self._tried(work), cancelled)

    def progress(self, id_: str, cancelled: Event) -> Progress:
        """How far a batch is. Raises: as `upload`."""
        return self._wait(self._tried(self._batch("GET", f"/batches/{id_}", None)), cancelled)

    def outcomes(
        self, facts: Facts, progress: Progress, cancelled: Event
    ) -> dict[int, Reply | Failure]:
        """What came of the requests of a batch that is over, by number. Raises: as `upload`."""
        found: dict[int, Reply | Failure] = {}
        for file in progress.outputs:

            async def work(client: AsyncOpenAI, file: str = file) -> bytes:
                return await self._raw(client, "GET", f"/files/{file}/content")

            raw = self._wait(self._tried(work), cancelled)
            for number, outcome in read_outcomes(
                raw, facts.name, len(facts.sizes), facts.labels
            ).items():
                if not isinstance(found.get(number), Reply):
                    found[number] = outcome
        return found

    def attempts(
        self, facts: Facts, progress: Progress, outcomes: Mapping[int, Reply | Failure]
    ) -> list[Attempt]:
        """One attempt for each request of a batch that is over, by number.

        What was not answered is no final attempt: it is asked again.
        """
        meter = _MeterOfBatch(facts)
        told = f"its batch {progress.status}" + (f" ({progress.error})" if progress.error else "")
        missing = Failure("server_error", f"{told} without an answer to it", retryable=True)
        made = []
        for number in range(len(facts.sizes)):
            request, outcome = Request(number, "", ""), outcomes.get(number, missing)
            if isinstance(outcome, Reply):
                outcome = without_key(outcome, self._key)
                made.append(delivered(meter, request, outcome, 0.0, judged=facts.judged))
            else:
                made.append(failed(meter, request, outcome, 0.0, outcome.error, final=False))
        return made

    def forget(self, file: str, cancelled: Event) -> bool:
        """Delete a file of requests; whether it is gone. A batch cannot be made of it any more."""

        async def work(client: AsyncOpenAI) -> bool:
            await self._raw(client, "DELETE", f"/files/{file}")
            return True

        try:
            return self._wait(self._tried(work), cancelled)
        except RefusedError as error:
            return "HTTP 404" in error.failure.error

    def close(self) -> None:
        """Release the connections; they may be made again."""
        client, self._client = self._client, None
        if client is not None:
            shared_loop().wait(client.close(), timeout_s=5.0)

    # --- one request ---------------------------------------------------------------------------

    def _batch(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> Callable[[AsyncOpenAI], Awaitable[Progress]]:
        async def work(client: AsyncOpenAI) -> Progress:
            progress = read_progress(_json(await self._raw(client, method, path, body)))
            if progress is None:
                raise RefusedError(
                    Failure("malformed", "the endpoint's answer is no batch", True, True)
                )
            return progress

        return work

    async def _raw(
        self,
        client: AsyncOpenAI,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
    ) -> bytes:
        import httpx2

        if method == "POST":
            response = await client.post(path, body=dict(body or {}), cast_to=httpx2.Response)
        elif method == "DELETE":
            response = await client.delete(path, cast_to=httpx2.Response)
        else:
            response = await client.get(path, cast_to=httpx2.Response)
        return bytes(response.content)

    async def _tried(self, work: Callable[[AsyncOpenAI], Awaitable[T]], tries: int = TRIES) -> T:
        """Do a piece of work; again where that may help.

        Raises:
            RefusedError: it failed for good.
        """
        import openai
        from aiohttp import ClientError

        client = await asyncio.to_thread(self._connected)
        for count in range(1, tries + 1):
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    return await work(client)
            except RefusedError as error:
                failure = error.failure
            except openai.APIStatusError as error:
                failure = read_error(error.response.status_code, error.body, error.response.headers)
            except (openai.OpenAIError, ClientError, TimeoutError, ValueError) as error:
                failure = connection_failure(error)
            if count == tries or not failure.retryable:
                break
            await asyncio.sleep(failure.wait_s or PAUSE_S * 2 ** (count - 1))
        raise RefusedError(scrubbed(failure, self._key, ""))

    def _connected(self) -> AsyncOpenAI:
        with self._connecting:
            if self._client is None:
                self._client = connect(
                    self.base_url,
                    self._key,
                    timeout_s=TIMEOUT_S,
                    connections=4,
                    most_bytes=MOST_OUTPUT_BYTES,
                )
            return self._client

    def _wait(self, work: Coroutine[Any, Any, T], cancelled: Event) -> T:
        """Wait for work on the loop of all network models."""
        loop = shared_loop()
        loop.close_at_exit(self)
        future = loop.spawn(work)
        ended = Event()
        future.add_done_callback(lambda _: ended.set())
        try:
            while not ended.wait(WATCH_S):
                if cancelled.is_set():
                    raise CancelledError(
                        "the statement was interrupted; the answers that came back are kept."
                    )
            return future.result()
        finally:
            future.cancel()


class _MeterOfBatch(Meter):
    """Counts what the calls of a batch cost, of whose requests only the sizes are known."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts.price, facts.longest, 0)
        self._sizes = facts.sizes

    def n_bytes(self, request: Request) -> int:
        """Bytes of a request, which is known by its number."""
        return self._sizes[request.index]


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
