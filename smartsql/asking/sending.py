"""Requests on their way to a model: each is noted in the moment it is handed over, and not before.

A backend takes its requests one after another, or in batches, as it has places for them. What it
has taken may be in flight; what it has not taken is not. So the notes tell, when the process ends
at any moment, which calls may have been billed.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import overload

import numpy as np

from smartsql.asking.budget import Gate
from smartsql.gateway import Attempt, Attempts, Backend, Request
from smartsql.ledger.sent import Section
from smartsql.types import IntArray


@dataclass(slots=True)
class Job:
    """Units that one model is being asked in this step; see `prompting.Prompting`.

    Attributes:
        todo: units to be asked, those before `position` were handed to the model.
        outstanding: units that the model has.
        elsewhere: units that others are asking, or a batch.
        bulk: no further decision waits for them.
        batches: rounds of batches so far.
        is_short: some of `elsewhere` wait for money that batches under way may leave.
    """

    model: str
    identity: int
    todo: IntArray
    cancelled: Event
    position: int = 0
    outstanding: int = 0
    elsewhere: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    bulk: bool = False
    batches: int = 0
    is_short: bool = False

    @property
    def is_open(self) -> bool:
        """Whether something is in flight or still to be asked."""
        return self.outstanding > 0 or self.position < self.todo.size or self.elsewhere.size > 0

    @property
    def left(self) -> int:
        """Calls that were begun or are still to be."""
        return self.outstanding + int(self.todo.size) - self.position


class Handed(Sequence[Request]):
    """Requests that are noted as they are taken.

    Args:
        section: where they are noted.
        worst: what a call may cost at most.
        cancelled: what is taken from now on is not sent.
        gate: the same once it is halted; it is halted when a note cannot be written, so that
            nothing goes out without one.
        failed: told why a note could not be written.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        section: Section,
        worst: Callable[[Request], float],
        cancelled: Event,
        gate: Gate,
        failed: Callable[[OSError], None],
    ) -> None:
        self._requests = requests
        self._section = section
        self._worst = worst
        self._cancelled = cancelled
        self._gate = gate
        self._failed = failed

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        for position, request in enumerate(self._requests):
            self._note(position, (request,))
            yield request

    @overload
    def __getitem__(self, index: int) -> Request: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Request]: ...
    def __getitem__(self, index: int | slice) -> Request | Sequence[Request]:
        if isinstance(index, int):
            index = range(len(self))[index]
            self._note(index, (self._requests[index],))
            return self._requests[index]
        start, _, step = index.indices(len(self))
        if step != 1:
            raise ValueError(f"requests are taken in their order, not in steps of {step}")
        taken = self._requests[index]
        self._note(start, taken)
        return taken

    def _note(self, first: int, requests: Sequence[Request]) -> None:
        if self._cancelled.is_set() or self._gate.is_halted:
            return
        try:
            self._section.mark(first, [self._worst(request) for request in requests])
        except OSError as error:
            self._gate.halt()
            self._failed(error)


def drained(arriving: Attempts, timeout_s: float, bits: int) -> dict[int, list[Attempt]]:
    """What has arrived, by number of the job; a list on the queue is of one job.

    Args:
        timeout_s: how long to wait for the first.
        bits: of an attempt's index that tell the unit; the others tell the job.
    """
    arrived: dict[int, list[Attempt]] = {}
    try:
        some = arriving.get(timeout=timeout_s)
        while True:
            arrived.setdefault(some[0].index >> bits, []).extend(some)
            some = arriving.get_nowait()
    except queue.Empty:
        return arrived


def worst_of(backend: Backend) -> Callable[[Request], float]:
    """What a call to a model may cost at most; about what it costs where that is not known."""
    worst: Callable[[Request], float] = getattr(
        backend, "worst_cost_usd", backend.expected_cost_usd
    )
    return worst
