"""The worker thread behind every model that answers inside this process.

A local model answers a list of requests at a time on one thread of its own, so that a statement
can wait for a network model and compute with a local one at once. Local models cost nothing by
default; what they take is measured in seconds of the batch's wall time, shared by its rows.
"""

from __future__ import annotations

import logging
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Lock, Thread
from types import TracebackType

from smartsql.errors import GatewayError
from smartsql.gateway import Allowance, Attempt, Attempts, Price, Request

logger = logging.getLogger(__name__)

FREE = Price(0.0, 0.0, "computed in this process")
"""The price of a model that nobody bills."""

BATCH_ROWS = 4096
CLOSE_WAIT_S = 10.0

Answer = Callable[[Sequence[Request]], list[Attempt]]
"""Answers one batch: exactly one attempt for each request."""


@dataclass(frozen=True, slots=True)
class Job:
    """Requests that wait for the worker thread."""

    requests: Sequence[Request]
    answer: Answer
    out: Attempts
    cancelled: Event


class LocalBackend(ABC):
    """A model in this process: one worker thread, batches in the order in which they were asked.

    A subclass says how to answer a batch. `cancelled` is honoured between batches, and so is
    `close`; what was not answered by then ends as "cancelled".

    Attributes:
        ready_s: seconds that it took to get ready (to load, to train); they belong to no answer
            and are in no answer's cost.
    """

    def __init__(self, name: str, price: Price = FREE, *, batch_rows: int = BATCH_ROWS) -> None:
        self._name = name
        self._price = price
        self._batch_rows = batch_rows
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._closing = Event()
        self._lock = Lock()
        self._thread: Thread | None = None
        self.ready_s = 0.0

    @property
    def name(self) -> str:
        """The model's name in the configuration."""
        return self._name

    @property
    def price(self) -> Price:
        """What tokens cost; zero unless the configuration says otherwise."""
        return self._price

    @property
    def claims(self) -> bool:
        """Whether a call is worth a claim; not where it costs no more than the claim itself."""
        return not self._price.is_free

    @abstractmethod
    def identity(self, labels: tuple[str, ...]) -> str:
        """Everything but the prompt that may change the answer."""

    @abstractmethod
    def _answerer(self, labels: tuple[str, ...], allowance: Allowance | None) -> Answer:
        """How to answer a batch from now on; may raise what the user must put right."""

    def _release(self) -> None:  # noqa: B027 - most models hold nothing
        """Free what the model holds; called once, on the worker thread, when it ends."""

    def expected_cost_usd(self, request: Request) -> float:
        """Estimate of one call's cost before it is made; 0 for a model without a price."""
        return 0.0

    def start(
        self,
        requests: Sequence[Request],
        labels: tuple[str, ...],
        out: Attempts,
        cancelled: Event,
        allowance: Allowance | None = None,
    ) -> None:
        """Begin to answer and return; every request ends in exactly one final attempt.

        Raises:
            GatewayError: the model was closed.
            ConfigError: the model cannot be used as configured, or not with these labels.
        """
        if not requests:
            return
        job = Job(requests, self._answerer(labels, allowance), out, cancelled)
        with self._lock:
            if self._closing.is_set():
                raise GatewayError(
                    f"model {self._name!r} was closed and cannot be asked; open a new connection.",
                    model=self._name,
                )
            if self._thread is None:
                self._thread = Thread(target=self._work, name=f"smartsql-{self._name}", daemon=True)
                self._thread.start()
            self._jobs.put(job)

    def close(self) -> None:
        """Stop after the batch under way and end the thread; safe to call again."""
        with self._lock:
            first = not self._closing.is_set()
            self._closing.set()
            if first:
                self._jobs.put(None)
        if self._thread is not None:
            # a callable that hangs must not hang the program with it: the thread is a daemon
            self._thread.join(CLOSE_WAIT_S)

    def _work(self) -> None:
        """Answer jobs until the backend is closed; runs on the worker thread."""
        while (job := self._jobs.get()) is not None:
            for batch in batches(job.requests, self._batch_rows):
                if job.cancelled.is_set() or self._closing.is_set():
                    job.out.put(failed(batch, "cancelled", "cancelled before it was asked"))
                else:
                    job.out.put(self._guarded(job.answer, batch))
        self._release()

    def _guarded(self, answer: Answer, batch: Sequence[Request]) -> list[Attempt]:
        """The batch's attempts, whatever happens in the model."""
        try:
            return answer(batch)
        except BaseException as error:
            # the boundary of the thread: an attempt must follow, or the reader waits for ever,
            # even if the model calls sys.exit
            message = f"model {self._name!r} raised {described(error)}"
            logger.warning("%s; %d rows got no answer", message, len(batch))
            return failed(batch, "server_error", message)


def batches(requests: Sequence[Request], rows: int) -> Iterator[Sequence[Request]]:
    """The requests in order, at most `rows` at a time."""
    for start in range(0, len(requests), rows):
        yield requests[start : start + rows]


def failed(
    requests: Sequence[Request], status: str, error: str, seconds: float = 0.0
) -> list[Attempt]:
    """A final attempt without an answer for each request; `seconds` is each one's share."""
    return [Attempt(r.index, True, status, seconds=seconds, error=error) for r in requests]


def described(error: BaseException) -> str:
    """An exception by its type and place; its text is left out, for it may quote a prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    last = own_frame(error.__traceback__) or frames[-1]
    return f"{type(error).__name__} at {last.filename}:{last.lineno}"


def own_frame(trace: TracebackType | None) -> traceback.FrameSummary | None:
    """The last frame outside installed libraries: where a user looks first."""
    frames = traceback.extract_tb(trace)
    mine = [f for f in frames if "site-packages" not in f.filename and f.filename != __file__]
    return mine[-1] if mine else None
