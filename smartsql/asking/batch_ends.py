"""How batches begin and end, whoever looks after them: a statement, or the command line."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from threading import Event

from smartsql.gateway import Attempt, Backend
from smartsql.gateway.openai_batch import BatchEndpoint, BatchTerms, RefusedError
from smartsql.gateway.openai_wire import Failure
from smartsql.ledger.batches import OPEN, Batches, Placed
from smartsql.ledger.owners import new_owner

log = logging.getLogger(__name__)

FIRST_POLL_S = 0.25
LONGEST_POLL_S = 30.0
SLOWER = 1.5
"""How often an endpoint is asked how far it is."""
TAKE_OVER_S = 2.0
"""How often the calls of batches are looked for among what others have answered."""


def terms_of(backend: Backend) -> BatchTerms | None:
    """When and how a model's calls go into batches; None for never."""
    terms: BatchTerms | None = getattr(backend, "batch_terms", None)
    return terms


def endpoint_of(backend: Backend) -> BatchEndpoint | None:
    """The batch API of a model's endpoint; None where it has none."""
    endpoint: BatchEndpoint | None = getattr(backend, "batches", None)
    return endpoint


def begun(batch: Placed, endpoint: BatchEndpoint, table: Batches, cancelled: Event) -> bool:
    """Whether the endpoint has begun a batch, as far as it knows now.

    Raises:
        RefusedError: the endpoint does not tell.
    """
    progress = endpoint.find(batch.name, cancelled)
    if progress is not None:
        table.opened(batch, progress.id, progress.status, progress.expires_at)
    return progress is not None


def find_out(batch: Placed, endpoint: BatchEndpoint, table: Batches, cancelled: Event) -> bool:
    """Whether the endpoint has begun a batch; if not, it never will, and the batch is dropped.

    Without its file no batch can be made any more, by a request that is still on its way.

    Raises:
        RefusedError: the endpoint does not tell.
    """
    if batch.file is not None:
        if begun(batch, endpoint, table, cancelled):
            return True
        endpoint.forget(batch.file, cancelled)
        if begun(batch, endpoint, table, cancelled):
            return True
    table.drop(batch)
    return False


def resumed(
    batch: Placed, endpoint: BatchEndpoint, table: Batches, maker: str, cancelled: Event
) -> None:
    """Find out about a batch whose maker is gone; nothing where it is not, or others are at it.

    Raises:
        RefusedError: the endpoint does not tell.
    """
    if not (batch.is_left and table.adopted(batch, maker)):
        return
    try:
        find_out(batch, endpoint, table, cancelled)
    except BaseException:
        table.left(batch)
        raise


def collected(
    batch: Placed, endpoint: BatchEndpoint, table: Batches, cancelled: Event
) -> list[Attempt] | None:
    """Take a batch's answers into the ledger without any statement; None where it goes on.

    Raises:
        RefusedError: the endpoint does not tell.
    """
    if batch.state != OPEN:
        resumed(batch, endpoint, table, new_owner(), cancelled)
        return None
    outcome = taken(batch, endpoint, table, cancelled)
    if outcome is None or not table.collect(batch, [(batch.run, list(zip(*outcome, strict=True)))]):
        return None
    finished(batch, endpoint, outcome[1], cancelled)
    return outcome[1]


def taken(
    batch: Placed, endpoint: BatchEndpoint, table: Batches, cancelled: Event
) -> tuple[list[bytes], list[Attempt]] | None:
    """What came of a batch, by the keys of its calls; None where it is not over.

    A batch that the endpoint does not know any more is dropped.

    Raises:
        RefusedError: the endpoint does not tell.
    """
    assert batch.id is not None
    try:
        progress = endpoint.progress(batch.id, cancelled)
    except RefusedError as error:
        if not error.failure.error.startswith("HTTP 404"):
            raise
        log.warning("batch %s of model %s is gone; its calls are made anew", batch.id, batch.model)
        table.drop(batch)
        return None
    table.seen(batch, progress.status, progress.done)
    if not progress.is_over:
        return None
    facts, keys = table.contents(batch)
    if not keys:  # somebody else has taken its answers since
        return None
    outcomes = endpoint.outcomes(facts, progress, cancelled)
    endpoint.adapt([o for o in outcomes.values() if isinstance(o, Failure)])
    return keys, endpoint.attempts(facts, progress, outcomes)


def finished(
    batch: Placed, endpoint: BatchEndpoint, attempts: Sequence[Attempt], cancelled: Event
) -> None:
    """Say what a batch left unanswered, and have the endpoint forget the prompts."""
    missing = sum(not a.final for a in attempts)
    if missing:
        log.warning(
            "batch %s of model %s left %d of %d calls unanswered; they are made anew",
            batch.id, batch.model, missing, len(attempts),
        )  # fmt: skip
    if batch.file is not None:
        with suppress(RefusedError):
            endpoint.forget(batch.file, cancelled)


class Polls:
    """When an endpoint is asked about the batches of a model.

    Attributes:
        began: when a job first waited for them.
        under_way: some were, when last looked for.
        silent_since: since when the endpoint says nothing.
    """

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.under_way = False
        self.silent_since: float | None = None
        self._next = self._look_at = self.began
        self._pause_s = FIRST_POLL_S

    def are_due(self) -> bool:
        """Whether it is time to ask again."""
        return time.monotonic() >= self._next

    def may_look(self) -> bool:
        """Whether it is time to see what others have answered; not too often, with many calls."""
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + TAKE_OVER_S
        return True

    def looked(self, *, under_way: bool) -> None:
        """It was asked just now."""
        self.under_way = under_way
        self._next = time.monotonic() + self._pause_s
        self._pause_s = min(LONGEST_POLL_S, self._pause_s * SLOWER)
