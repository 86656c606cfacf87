"""The bulk of a statement through the batch API of its models: handed in, and waited for.

What no further decision waits for (`Ask.bulk`) may be answered within a day, at the price of
batches. The ledger knows every batch before it exists, holds the claims of its calls while it is
under way, and takes its answers in one transaction. So a process may end at any moment: whoever
needs one of the answers next, in whatever process, finds the batch and waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from threading import Event

import numpy as np

from smartsql.asking.batch_ends import (
    Polls,
    begun,
    endpoint_of,
    find_out,
    finished,
    resumed,
    taken,
    terms_of,
)
from smartsql.asking.budget import Gate
from smartsql.asking.claiming import Claiming
from smartsql.asking.sending import Job
from smartsql.calls.book import Book
from smartsql.calls.prompting import Prompting
from smartsql.errors import BatchPendingError, GatewayError, LedgerError
from smartsql.gateway import Attempt, Backend, Price, Request
from smartsql.gateway.openai_batch import (
    MOST_BYTES,
    MOST_CALLS,
    BatchEndpoint,
    BatchTerms,
    RefusedError,
)
from smartsql.ledger import Ledger, Stored
from smartsql.ledger.batches import OPEN, Batches, Placed, new_batch
from smartsql.ledger.owners import new_owner

MOST_BATCHES = 2
"""Rounds of batches for one job: what two leave unanswered is asked call by call."""
OUTAGE_S = 300.0
"""How long an endpoint may say nothing of a batch before the statement gives up waiting."""
TRIES = 3
PAUSE_S = 0.5
RENEW_EVERY = 1024
"""Requests that are written between two looks at leases and interruptions."""

Arrived = tuple[list[int], list[Attempt]]
"""Units of a job, and what came of each."""


class Batching:
    """Batches of one run of a statement.

    Args:
        backends: who may be asked, by the names of jobs' models.
        claims: what the run holds in the ledger.
        lease: under which a cap has set money aside in the ledger, if one has.
    """

    def __init__(
        self,
        ledger: Ledger,
        run: int,
        book: Book,
        prompting: Prompting,
        gate: Gate,
        backends: Mapping[str, Backend],
        *,
        claims: Claiming,
        lease: str | None,
        cancelled: Event,
    ) -> None:
        self.table = Batches(ledger)
        self._run = run
        self._book = book
        self._prompting = prompting
        self._gate = gate
        self._backends = backends
        self._claims = claims
        self._lease = lease
        self._cancelled = cancelled
        self._maker = new_owner()
        self._held: dict[str, int] = {}
        self._is_short = False
        self._polls: dict[int, Polls] = {}

    # --- handing in ----------------------------------------------------------------------------

    def place(self, job: Job) -> None:
        """Hand in a job's calls as batches, where they are many enough; they are elsewhere then.

        Raises:
            GatewayError: the endpoint does not take them.
            CancelledError: the statement was interrupted.
        """
        if not job.bulk or job.batches >= MOST_BATCHES:
            return
        backend = self._backends[job.model]
        terms, endpoint = terms_of(backend), endpoint_of(backend)
        if terms is None or endpoint is None or job.todo.size < terms.at_least:
            return
        job.batches += 1
        self._is_short = False
        placed: list[int] = []
        for start in range(0, job.todo.size, MOST_CALLS):
            units = job.todo[start : start + MOST_CALLS].tolist()
            for labels, requests in self._prompting.requests(job.model, units, 0):
                placed += self._place_all(job, endpoint, terms, labels, requests)
        # what the money does not cover yet may be covered when it is known what the others cost
        job.is_short = self._is_short and bool(self._held_of(job))
        gone = np.isin(job.todo, np.array(placed, dtype=np.int64)) | job.is_short
        job.elsewhere = np.concatenate([job.elsewhere, job.todo[gone]])
        job.todo = job.todo[~gone]

    def _place_all(
        self,
        job: Job,
        endpoint: BatchEndpoint,
        terms: BatchTerms,
        labels: tuple[str, ...],
        requests: Sequence[Request],
    ) -> list[int]:
        """The units of those requests that went into batches, the first ones."""
        done = 0
        price = endpoint.price(terms)
        while len(requests) - done >= terms.at_least:
            n = self._place(job, endpoint, terms, price, labels, requests[done:])
            if not n:
                break
            done += n
        return [request.index for request in requests[:done]]

    def _place(
        self,
        job: Job,
        endpoint: BatchEndpoint,
        terms: BatchTerms,
        price: Price,
        labels: tuple[str, ...],
        requests: Sequence[Request],
    ) -> int:
        """Hand in as many as a batch holds and the money covers; how many those are."""
        batch = new_batch(
            identity=job.identity, run=self._run, model=job.model, url=endpoint.base_url,
            maker=self._maker,
        )  # fmt: skip
        lines, usd = self._covered(endpoint, batch.name, price, requests)
        some = requests[: len(lines)]
        keys = self._prompting.keys(job.model, [request.index for request in some])
        facts = endpoint.facts(batch.name, price, labels, some)
        known = None
        try:
            if len(some) >= terms.at_least:
                known = self.table.prepare(
                    batch, facts, keys, usd=usd, owner=self._claims.owner, lease=self._lease
                )
        finally:
            if known is None:
                self._gate.settle(usd, 0.0)
        if known is None:
            return 0
        self._gate.lend(known.name, usd)
        self._held[known.name] = job.identity
        try:
            self._submit(known, endpoint, terms, lines)
        except BaseException as error:
            # Ctrl-C too: whoever comes next is to find out whether it has begun
            with suppress(LedgerError):
                self.table.left(known)
            if isinstance(error, RefusedError):
                raise self._refused(known, error) from None
            raise
        return len(some)

    def _covered(
        self, endpoint: BatchEndpoint, name: str, price: Price, requests: Sequence[Request]
    ) -> tuple[list[bytes], float]:
        """Lines of the first requests, as many as fit, and the money set aside for them."""
        lines: list[bytes] = []
        usd, size = 0.0, 0
        for number, request in enumerate(requests[:MOST_CALLS]):
            if number % RENEW_EVERY == 0:
                self._claims.renew()
                if self._cancelled.is_set():
                    break
            line = endpoint.line(name, number, request)
            worst = endpoint.worst_cost_usd(request, price)
            if size + len(line) > MOST_BYTES:
                break
            if not self._gate.reserve(worst):
                self._is_short = not self._gate.is_halted
                break
            lines.append(line)
            usd, size = usd + worst, size + len(line)
        return lines, usd

    def _submit(
        self, batch: Placed, endpoint: BatchEndpoint, terms: BatchTerms, lines: Sequence[bytes]
    ) -> None:
        """Have the endpoint begin; if it cannot be told whether it did, find out."""
        try:
            file = endpoint.upload(batch.name, lines, self._cancelled)
        except RefusedError:
            self._drop(batch)
            raise
        batch = self.table.sent(batch, file)
        for count in range(TRIES):
            try:
                progress = endpoint.create(batch.name, file, terms.window, self._cancelled)
                self.table.opened(batch, progress.id, progress.status, progress.expires_at)
                return
            except RefusedError as error:
                failure = error.failure
                # a refusal in so many words can be tried again, a silence cannot
                again = failure.retryable and not failure.may_be_billed and count + 1 < TRIES
                if again and not begun(batch, endpoint, self.table, self._cancelled):
                    self._cancelled.wait(failure.wait_s or PAUSE_S * 2**count)
                elif again or self._find_out(batch, endpoint):
                    return
                else:
                    raise

    def _find_out(self, batch: Placed, endpoint: BatchEndpoint) -> bool:
        """Whether the endpoint has begun a batch; if not, it never will, and its money is free."""
        if find_out(batch, endpoint, self.table, self._cancelled):
            return True
        self._come_back(batch.name)
        return False

    def _drop(self, batch: Placed) -> None:
        self.table.drop(batch)
        self._come_back(batch.name)

    def _come_back(self, name: str, spent_usd: float = 0.0) -> None:
        """A batch is over, and cost this statement so much."""
        self._held.pop(name, None)
        self._gate.come_back(name, spent_usd)

    def _refused(self, batch: Placed, error: RefusedError) -> GatewayError:
        failure = error.failure
        return GatewayError(
            f"a batch of {batch.calls:,} calls to the model {batch.model!r} could not be handed "
            f"in: {failure.error}. All paid answers are kept. Run the statement again later, or "
            f'set mode = "live" on the model to have the calls made one by one at their full '
            f"price.",
            model=batch.model,
            retryable=failure.retryable,
        )

    # --- waiting -------------------------------------------------------------------------------

    def attend(self, job: Job) -> Arrived | None:
        """Look after the batches of a job's model, if it is time to; what came for the job.

        None where nothing can have changed for its units.

        Raises:
            GatewayError: the endpoint says nothing of its batches.
            CancelledError: the statement was interrupted.
        """
        endpoint = endpoint_of(self._backends[job.model])
        polls = self._polls.setdefault(job.identity, Polls())
        units: list[int] = []
        attempts: list[Attempt] = []
        if endpoint is None:
            return units, attempts
        if not polls.are_due():
            if job.is_short and self._held_of(job):
                return None
            return None if polls.under_way and not polls.may_look() else (units, attempts)
        under_way = self.table.under_way(job.identity)
        for batch in under_way:
            try:
                arrived = self._arrived(batch, endpoint, job)
            except RefusedError as error:
                self._endure(polls, batch, error)
                continue
            polls.silent_since = None
            units += arrived[0]
            attempts += arrived[1]
        polls.looked(under_way=bool(under_way))
        ended = [unit for unit, a in zip(units, attempts, strict=True) if a.final]
        job.elsewhere = job.elsewhere[~np.isin(job.elsewhere, np.array(ended, dtype=np.int64))]
        known = [batch.name for batch in under_way]
        for name in self._held_of(job):
            if name not in known:  # others have taken its answers
                self._come_back(name)
        if job.is_short:
            if not units and self._held_of(job):
                return None
            job.is_short, job.batches = False, job.batches - bool(ended)
        return units, attempts

    def _held_of(self, job: Job) -> list[str]:
        """Batches of this run and the job's model that are under way."""
        return [name for name, identity in self._held.items() if identity == job.identity]

    def _arrived(self, batch: Placed, endpoint: BatchEndpoint, job: Job) -> Arrived:
        """What came of one batch for a job, once it is over and if nobody else took it."""
        if batch.state != OPEN:
            resumed(batch, endpoint, self.table, self._maker, self._cancelled)
            return [], []
        outcome = taken(batch, endpoint, self.table, self._cancelled)
        if outcome is None:
            return [], []
        keys, attempts = outcome
        mine = job.elsewhere.tolist()
        units = dict(zip(self._prompting.keys(job.model, mine), mine, strict=True))
        own = [k for k, key in enumerate(keys) if key in units]
        found = [units[keys[k]] for k in own]
        judged = self._book.judged(job.model, found, [attempts[k] for k in own])
        others = [(key, a) for key, a in zip(keys, attempts, strict=True) if key not in units]
        ours = [(keys[k], a) for k, a in zip(own, judged, strict=True)]
        if not self.table.collect(batch, [(self._run, ours), (batch.run, others)]):
            return [], []
        spent = sum(a.cost_usd for a in judged)
        self._come_back(batch.name, spent)
        finished(batch, endpoint, attempts, self._cancelled)
        return found, judged

    def _endure(self, polls: Polls, batch: Placed, error: RefusedError) -> None:
        """Nothing is known of a batch for now; not for ever."""
        now = time.monotonic()
        polls.silent_since = now if polls.silent_since is None else polls.silent_since
        if error.failure.hopeless or now - polls.silent_since > OUTAGE_S:
            raise GatewayError(
                f"nothing is known of a batch of {batch.calls:,} calls to the model "
                f"{batch.model!r} that was handed in earlier: {error.failure.error}. It may still "
                f"be under way; run the statement again later. `smartsql batches --forget "
                f"{batch.number}` gives it up, and what it was billed.",
                model=batch.model,
                retryable=error.failure.retryable,
            ) from None

    def check_patience(self, jobs: Sequence[Job]) -> None:
        """Have the statement end where nothing but batches is left and they take too long.

        Raises:
            BatchPendingError: a model's time to wait is over.
        """
        if not any(job.outstanding or job.position < job.todo.size for job in jobs):
            for job in jobs:
                if job.elsewhere.size:
                    self._check_patience(job)

    def _check_patience(self, job: Job) -> None:
        terms, polls = terms_of(self._backends[job.model]), self._polls.get(job.identity)
        if terms is None or terms.wait_s is None or polls is None or not polls.under_way:
            return
        if time.monotonic() - polls.began < terms.wait_s:
            return
        under_way = self.table.under_way(job.identity)
        if under_way:
            until = [b.until for b in under_way if b.until is not None]
            raise BatchPendingError(
                job.model,
                sum(b.calls for b in under_way),
                sum(b.done for b in under_way),
                max(until, default=None),
            )

    def read(self, model: str, identity: int, found: dict[bytes, Stored]) -> dict[bytes, Stored]:
        """Answers of the ledger; those taken without their statement are judged by it now."""
        odd = self._book.not_of_type(model, found) if found else []
        if odd and self.table.exist():
            self.table.demote(identity, odd)
            found |= {key: replace(found[key], status="unusable") for key in odd}
        return found
