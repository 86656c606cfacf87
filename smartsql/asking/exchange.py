"""The exchange: asks go to the ledger first, then to the models; answers come back durable.

This is the `Source` of a live statement. It owns everything that touches the outside, so that
policies stay pure: lookups, claims, requests in flight, the budget, retries' bills, cancellation.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Literal

import numpy as np

from smartsql.asking.budget import Cap, Gate
from smartsql.asking.learners import Learners
from smartsql.calls.book import NOT_ASKED, Book
from smartsql.calls.cells import Cells
from smartsql.calls.prompting import Prompting
from smartsql.calls.recipes import Recipe
from smartsql.errors import (
    AnswerFormatError,
    CancelledError,
    GatewayError,
    RateLimitError,
    SmartSQLError,
)
from smartsql.gateway import DELIVERED, Attempt, Attempts, Backend, Price
from smartsql.ledger import LEASE_S, Ledger, Stored
from smartsql.ledger.owners import new_owner
from smartsql.profile import Profile
from smartsql.types import Ask, BoolArray, IntArray

Progress = Callable[[str, int, int, float], None]
"""Called with (model, done, total of this step, USD so far)."""

SLICE = 32_768
"""Requests handed to a backend at once; bounds the memory of a large statement."""
_MODEL_BIT = 40
_UNIT_MASK = (1 << _MODEL_BIT) - 1
GRACE_S = 0.5
"""How long paid calls in flight may still end after an interrupt."""
PATIENCE_S = 15.0
"""How long cancelled calls may take to say so."""
POLL_S = 0.05
"""How often the answers of others are looked for."""


@dataclass(slots=True)
class Job:
    """Units that one model is being asked in this step; see `prompting.Prompting`."""

    model: str
    identity: int
    todo: IntArray
    cancelled: Event
    position: int = 0
    outstanding: int = 0
    elsewhere: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def is_open(self) -> bool:
        """Whether something is in flight or still to be asked."""
        return self.outstanding > 0 or self.position < self.todo.size or self.elsewhere.size > 0


class Exchange:
    """Where a live statement's answers come from (an `executor.Source`).

    Args:
        cells: what is asked.
        backends: who is asked, by the names of the recipes; the reference among them.
        identities: under which their answers are kept, by name.
        recipes: how calls are made, by name.
        reference: name of the reference model.
        in_seconds: costs are measured seconds instead of dollars.
        caps: limits of money, all of which must cover a call before it is made.
        lease: under which a cap has set money aside in the ledger, if one has.
        on_error: "error" stops at the first row that the reference fails for good.
        progress: called with (model, done, total of this step, USD so far).
        cancelled: set from outside to end the statement.
    """

    def __init__(
        self,
        cells: Cells,
        backends: Mapping[str, Backend],
        identities: Mapping[str, str],
        ledger: Ledger,
        run: int,
        *,
        reference: str,
        recipes: Mapping[str, Recipe],
        in_seconds: bool = False,
        on_error: Literal["error", "null"] = "error",
        caps: Sequence[Cap] = (),
        lease: str | None = None,
        progress: Progress | None = None,
        cancelled: Event | None = None,
    ) -> None:
        self._backends = dict(backends)
        self._ledger = ledger
        self._run = run
        self._reference = reference
        self._on_error = on_error
        self._gate = Gate(caps)
        self._lease = lease
        self._progress = progress
        self._cancelled = cancelled or Event()
        self._owner = new_owner()
        self._queue: Attempts = queue.SimpleQueue()
        self.book = Book(cells, recipes, in_seconds=in_seconds)
        self._prompting = Prompting(self.book)
        self._recipes = recipes
        self.identities = dict(identities)
        self.learners = Learners(self._backends, self.identities, self.book, reference)
        self._failure: SmartSQLError | None = None
        self._has_claimed = False

    asks_again = True
    """Whether the reference is asked again what it failed to answer earlier."""

    def price_of(self, model: str) -> Price:
        """What the model's tokens cost."""
        return self._backends[model].price

    def ready_seconds(self) -> dict[str, float]:
        """Seconds that each model has taken to get ready, for what is in no answer's cost.

        A learning model is one for this statement alone.
        """
        models = {r.backend for r in self._recipes.values() if r.role in ("reference", "candidate")}
        found = {name: self._backends.get(name) for name in sorted(models)}
        return {name: getattr(backend, "ready_s", 0.0) for name, backend in found.items()}

    def close(self) -> None:
        """Release what was made for this statement alone."""
        self.learners.close()

    # --- one step ----------------------------------------------------------------------------

    def fulfil(self, asks: Sequence[Ask], profile: Profile) -> None:
        """Answer one step's asks concurrently; see `executor.Source`.

        Raises:
            GatewayError: the reference failed a row for good and `on_error` is "error".
            BudgetError: the budget does not cover what is left.
            CancelledError: the statement was interrupted.
            LedgerError: answers cannot be kept.
        """
        for ask in asks:
            if ask.fit:
                self.learners.fit(ask.model, profile)
        jobs: list[Job] = []
        try:
            jobs += [self._job(ask, profile) for ask in asks if ask.prompts.size]
            self._work(jobs, profile, sum(job.todo.size + job.elsewhere.size for job in jobs))
        except BaseException:
            # Ctrl-C too: calls in flight are paid for, and what they answer is kept
            self._abandon(jobs, profile)
            raise
        finally:
            if self._has_claimed:
                self._ledger.release(self._owner)
        if self._failure:
            raise self._failure

    def _job(self, ask: Ask, profile: Profile) -> Job:
        """The units of an ask that are not in the ledger; those that are go to the profile."""
        identity = self._ledger.identity(ask.model, self.identity_of(ask.model))
        prompts = self._with_prerequisites(ask, profile)
        job = Job(ask.model, identity, self._prompting.units(ask.model, prompts), Event())
        version = self._ledger.version()
        job.todo = job.todo[~self._take_stored(job, job.todo, profile)]
        if self._backends[ask.model].claims:
            self._claim(job)
            # between our lookup and our claim another owner may have paid and let go
            if self._ledger.version() != version:
                job.todo = job.todo[~self._take_stored(job, job.todo, profile)]
        return job

    def _with_prerequisites(self, ask: Ask, profile: Profile) -> IntArray:
        """The prompts for which all answers that go into them are usable; the others fail."""
        prompts = np.sort(ask.prompts)
        missing = np.zeros(prompts.size, dtype=np.bool_)
        for name in self._recipes[ask.model].after:
            missing |= profile.codes(name)[prompts] < 0
        if missing.any():
            self.book.enter_not_asked(ask.model, prompts[missing], profile)
        return prompts[~missing]

    def keys(self, model: str, units: Sequence[int]) -> list[bytes]:
        """Under which answers are kept in the ledger, beside the identity."""
        return self._prompting.keys(model, units)

    def _claim(self, job: Job) -> None:
        """Keep those units to do that nobody else is asking right now."""
        if not self._has_claimed:
            self._ledger.reap()
        self._has_claimed = True
        mine = np.ones(job.todo.size, dtype=np.bool_)
        for start in range(0, job.todo.size, SLICE):
            digests = self.keys(job.model, job.todo[start : start + SLICE].tolist())
            others = self._ledger.claim(job.identity, digests, self._owner)
            if others:
                mine[start : start + SLICE] = [d not in others for d in digests]
        job.elsewhere = job.todo[~mine]
        job.todo = job.todo[mine]

    def _take_over(self, job: Job, profile: Profile) -> None:
        """See what became of the units that others were asking."""
        waiting = job.elsewhere[~self._take_stored(job, job.elsewhere, profile)]
        self._ledger.reap()
        later = Job(job.model, job.identity, waiting, job.cancelled)
        self._claim(later)
        job.elsewhere, job.position = later.elsewhere, 0
        job.todo = later.todo[~self._take_stored(job, later.todo, profile)]

    def _take_stored(self, job: Job, units: IntArray, profile: Profile) -> BoolArray:
        """Record what the ledger holds; which of the units that were; shape of `units`."""
        found = np.zeros(units.size, dtype=np.bool_)
        for start in range(0, units.size, SLICE):
            some = units[start : start + SLICE].tolist()
            stored = self._lookup(job.model, job.identity, some)
            self._enter_stored(job.model, stored, profile)
            if stored:
                found[start : start + SLICE] = [unit in stored for unit in some]
        return found

    def identity_of(self, model: str) -> str:
        """The identity under which a model's answers are stored now."""
        return self.learners.identity(model)

    def _lookup(self, model: str, identity: int, units: list[int]) -> dict[int, Stored]:
        digests = self.keys(model, units)
        found = self._ledger.lookup(identity, digests)
        if not found:
            return {}
        # what the reference failed to answer is asked again, what a candidate failed is known
        again = self.asks_again and model == self._reference
        return {
            unit: found[d]
            for unit, d in zip(units, digests, strict=True)
            if d in found and not (again and found[d].status != "ok")
        }

    def _enter_stored(self, model: str, stored: dict[int, Stored], profile: Profile) -> None:
        if stored:
            failed = self.book.enter_stored(model, stored, profile)
            for prompt in failed if model == self._reference else ():
                self._reference_failed(prompt, stored[prompt])

    # --- requests in flight ------------------------------------------------------------------

    def _work(self, jobs: list[Job], profile: Profile, total: int) -> None:
        if self._failure:  # an answer that was paid for earlier is not usable
            return
        done, next_renewal = 0, time.monotonic() + LEASE_S / 3
        while any(job.is_open for job in jobs):
            self._check_cancelled()
            for number, job in enumerate(jobs):
                if job.outstanding == 0 and not self._failure:
                    self._start(number, job, profile)
                elif self._failure:
                    job.position, job.elsewhere = job.todo.size, job.elsewhere[:0]
                    if self._backends[job.model].price.is_free:
                        job.cancelled.set()  # what is in flight elsewhere is paid: let it end
            done += self._receive(jobs, profile, timeout_s=0.1)
            if self._progress:
                self._progress(jobs[0].model, done, total, self.book.spent_usd)
            if self._has_claimed and time.monotonic() > next_renewal:
                self._ledger.renew(self._owner)
                next_renewal = time.monotonic() + LEASE_S / 3
        self._check_cancelled()

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise CancelledError(
                "the statement was interrupted; the answers that came back are kept."
            )

    def _start(self, number: int, job: Job, profile: Profile) -> None:
        """Hand the next slice to the backend."""
        if job.position >= job.todo.size and job.elsewhere.size:
            time.sleep(POLL_S)
            self._take_over(job, profile)
        units = job.todo[job.position : job.position + SLICE].tolist()
        if not units:
            return
        job.position += len(units)
        for labels, requests in self._prompting.requests(job.model, units, number << _MODEL_BIT):
            self._backends[job.model].start(
                requests, labels, self._queue, job.cancelled, self._gate
            )
            job.outstanding += len(requests)

    def _receive(self, jobs: list[Job], profile: Profile, timeout_s: float) -> int:
        """Take what has arrived: to the ledger first, then to the profile."""
        ended = 0
        for number, arrived in self._drain(timeout_s).items():
            job = jobs[number]
            units = [a.index & _UNIT_MASK for a in arrived]
            attempts = self.book.judged(job.model, units, arrived)
            self._keep(job, units, attempts)
            finals = sum([a.final for a in attempts])
            self._settle(job, units, attempts, profile)
            job.outstanding -= finals
            ended += finals
        return ended

    def _drain(self, timeout_s: float) -> dict[int, list[Attempt]]:
        """What has arrived, by number of the job; a list on the queue is of one job."""
        arrived: dict[int, list[Attempt]] = {}
        try:
            some = self._queue.get(timeout=timeout_s)
            while True:
                arrived.setdefault(some[0].index >> _MODEL_BIT, []).extend(some)
                some = self._queue.get_nowait()
        except queue.Empty:
            return arrived

    def _keep(self, job: Job, units: list[int], attempts: list[Attempt]) -> None:
        """Make attempts durable and count them; what was never sent is no attempt."""
        keys = self.keys(job.model, units)
        tried = [
            (key, a)
            for key, a in zip(keys, attempts, strict=True)
            if a.status not in NOT_ASKED or a.cost_usd
        ]
        if tried:
            self._ledger.record(self._run, job.identity, tried, self._lease)
        self.book.count(job.model, units, attempts)

    def _settle(
        self, job: Job, units: list[int], attempts: list[Attempt], profile: Profile
    ) -> None:
        """Take final attempts to the profile."""
        if any(a.status != "ok" for a in attempts):
            for unit, a in zip(units, attempts, strict=True):
                if a.status in NOT_ASKED:
                    self._stop(job, a)
                elif a.final and a.status not in DELIVERED and job.model == self._reference:
                    self.book.errors[unit] = a.error or a.status
            kept = [
                (unit, a)
                for unit, a in zip(units, attempts, strict=True)
                if a.final and a.status not in NOT_ASKED
            ]
            units, attempts = [unit for unit, _ in kept], [a for _, a in kept]
        if not attempts:
            return
        failed = self.book.enter(job.model, units, attempts, profile)
        for k in failed if job.model == self._reference else ():
            self._reference_failed(units[k], attempts[k])

    # --- unhappy ends ------------------------------------------------------------------------

    def _reference_failed(self, prompt: int, answer: Stored | Attempt) -> None:
        status = answer.status
        message = self.book.errors.setdefault(prompt, self.book.why(answer))
        if self._on_error == "error" and self._failure is None:
            kind = {"rate_limited": RateLimitError, "ok": AnswerFormatError}.get(
                status, AnswerFormatError if status in DELIVERED else GatewayError
            )
            self._failure = kind(
                f"the reference model {self._reference!r} gave no usable answer to a row: "
                f'{message}. All paid answers are kept. Set on_error = "null" to have such rows '
                f"answered by NULL with the reason in the error column.",
                model=self._reference,
                retryable=status not in (*DELIVERED, "rejected"),
            )
            self._gate.halt()

    def _stop(self, job: Job, attempt: Attempt) -> None:
        if self._failure is not None:
            return
        refusal = self._gate.refusal
        if attempt.status == "budget" and refusal is not None:
            left = job.outstanding + job.todo.size - job.position
            self._failure = refusal.error(left)
        else:
            self._failure = CancelledError("the statement was interrupted.")
        self._gate.halt()

    def _abandon(self, jobs: list[Job], profile: Profile) -> None:
        """Let what is in flight end for a moment, cancel the rest, keep what comes back."""
        self._gate.halt()
        grace = time.monotonic() + GRACE_S
        for job in jobs:
            if self._backends[job.model].price.is_free:
                job.cancelled.set()
        while any(job.outstanding for job in jobs) and time.monotonic() < grace + PATIENCE_S:
            if time.monotonic() >= grace:
                for job in jobs:
                    job.cancelled.set()
            self._receive(jobs, profile, timeout_s=0.05)
