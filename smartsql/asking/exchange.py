"""The exchange: asks go to the ledger first, then to the models; answers come back durable.

This is the `Source` of a live statement. It owns everything that touches the outside, so that
policies stay pure: lookups, claims, requests in flight, the budget, retries' bills, cancellation.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Event
from typing import Literal

import numpy as np

from smartsql.asking.batching import Batching
from smartsql.asking.budget import Cap, Gate
from smartsql.asking.claiming import SLICE, Claiming
from smartsql.asking.failing import reference_error
from smartsql.asking.learners import Learners
from smartsql.asking.sending import Job, drained
from smartsql.calls.book import NOT_ASKED, Book
from smartsql.calls.cells import Cells
from smartsql.calls.prompting import KeepPrompts, Prompting
from smartsql.calls.recipes import Recipe
from smartsql.errors import CancelledError, LedgerError, SmartSQLError
from smartsql.gateway import DELIVERED, Attempt, Attempts, Backend, Price
from smartsql.gateway.worker import LocalBackend
from smartsql.ledger import Ledger, Stored
from smartsql.profile import Profile
from smartsql.types import Ask, BoolArray, IntArray

Progress = Callable[[str, int, int, float], None]
"""Called with (model, done, total of this step, USD so far)."""

WINDOWS = 4
"""Requests handed to a network model and not recorded yet, for each that may be in flight: enough
to keep it busy, few enough that little is asked while the ledger cannot be written."""
_MODEL_BIT = 40
_UNIT_MASK = (1 << _MODEL_BIT) - 1
GRACE_S = 0.3
"""How long paid calls in flight may still end after an interrupt."""
PATIENCE_S = 15.0
"""How long cancelled calls may take to say so."""
POLL_S = 0.05
"""How often the answers of others are looked for."""


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
        keep_prompts: called with what is about to be asked, by its keys.
        at_once: calls that may be in flight; None where nothing limits them.
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
        keep_prompts: KeepPrompts | None = None,
        at_once: int | None = None,
    ) -> None:
        self._backends = dict(backends)
        self._ledger, self._run = ledger, run
        self._reference = reference
        self._on_error = on_error
        self._gate = Gate(caps)
        self._lease = lease
        self._progress = progress
        self._cancelled = cancelled or Event()
        self._at_once = at_once
        self._claims = Claiming(ledger, run, self.keys)
        self._queue: Attempts = queue.SimpleQueue()
        self.book = Book(cells, recipes, in_seconds=in_seconds)
        self._prompting = Prompting(self.book, keep_prompts)
        self._recipes = recipes
        self.identities = dict(identities)
        self.learners = Learners(self._backends, self.identities, self.book, reference)
        self._batching = Batching(
            ledger, run, self.book, self._prompting, self._gate, self._backends,
            claims=self._claims, lease=lease, cancelled=self._cancelled,
        )  # fmt: skip
        self._failure: SmartSQLError | None = None

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
        except BaseException as error:
            # Ctrl-C too: calls in flight are paid for, and what they answer is kept
            self._abandon(jobs, profile)
            if isinstance(self._failure, LedgerError) and isinstance(error, SmartSQLError):
                raise self._last_word(self._failure) from error
            raise
        finally:
            # what did not end by now has no known end
            self._claims.release(settled=not any(job.outstanding for job in jobs))
        if self._failure:
            raise self._last_word(self._failure)

    def _job(self, ask: Ask, profile: Profile) -> Job:
        """The units of an ask that are not in the ledger; those that are go to the profile."""
        identity = self._ledger.identity(ask.model, self.identity_of(ask.model))
        prompts = self._with_prerequisites(ask, profile)
        units = self._prompting.units(ask.model, prompts)
        job = Job(ask.model, identity, units, Event(), bulk=ask.bulk)
        version = self._ledger.version()
        job.todo = job.todo[~self._take_stored(job, job.todo, profile)]
        if self._backends[ask.model].claims:
            self._claims.claim(job)
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

    def _take_over(self, job: Job, profile: Profile) -> None:
        """See what became of the units that others were asking."""
        waiting = job.elsewhere[~self._take_stored(job, job.elsewhere, profile)]
        self._ledger.reap()
        later = Job(job.model, job.identity, waiting, job.cancelled)
        self._claims.claim(later)
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
        found = self._batching.read(model, identity, self._ledger.lookup(identity, digests))
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
        done = 0
        for job in jobs:
            self._batching.place(job)
        while any(job.is_open for job in jobs):
            self._check_cancelled()
            for number, job in enumerate(jobs):
                if not self._failure:
                    self._start(number, job, profile)
                else:
                    job.position, job.elsewhere = job.todo.size, job.elsewhere[:0]
                    if self._backends[job.model].price.is_free:
                        job.cancelled.set()  # what is in flight elsewhere is paid: let it end
            done += self._receive(jobs, profile, timeout_s=0.1)
            if self._progress:
                self._progress(jobs[0].model, done, total, self.book.spent_usd)
            self._claims.renew()
            self._batching.check_patience(jobs)
        self._check_cancelled()

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise CancelledError(
                "the statement was interrupted; the answers that came back are kept."
            )

    def _start(self, number: int, job: Job, profile: Profile) -> None:
        """Hand the next requests to the backend, when it has done half of those it has."""
        window = self._window(job.model)
        if job.outstanding > (window // 2 if window < SLICE else 0):
            return
        if job.position >= job.todo.size and job.elsewhere.size and not job.outstanding:
            self._wait(job, profile)
        units = job.todo[job.position : job.position + window - job.outstanding].tolist()
        if not units:
            return
        job.position += len(units)
        for labels, requests in self._prompting.requests(job.model, units, number << _MODEL_BIT):
            backend, sent = self._backends[job.model], [r.index & _UNIT_MASK for r in requests]
            handed = self._claims.handed(job, backend, requests, sent, self._gate, self._not_noted)
            start = backend.start
            start(handed, labels, self._queue, job.cancelled, self._gate)
            job.outstanding += len(requests)

    def _wait(self, job: Job, profile: Profile) -> None:
        """Look what became of the units that others, or batches, are asking."""
        time.sleep(POLL_S)
        arrived = self._batching.attend(job)
        if arrived is not None:
            self.book.count(job.model, *arrived)
            self._settle(job, *arrived, profile)
            self._take_over(job, profile)
            self._batching.place(job)

    def _window(self, model: str) -> int:
        """The most requests that a model has and whose answers are not recorded."""
        if self._at_once is None or isinstance(self._backends[model], LocalBackend):
            return SLICE
        return min(SLICE, WINDOWS * self._at_once)

    def _not_noted(self, error: OSError) -> None:
        """Nothing goes out that could not be noted; called on the thread of a backend."""
        self._failure = self._ledger.trouble("write", error)

    def _receive(self, jobs: list[Job], profile: Profile, timeout_s: float) -> int:
        """Take what has arrived: to the ledger first, then to the profile."""
        ended = 0
        for number, arrived in drained(self._queue, timeout_s, _MODEL_BIT).items():
            job = jobs[number]
            units = [a.index & _UNIT_MASK for a in arrived]
            attempts = self.book.judged(job.model, units, arrived)
            self._keep(job, units, attempts)
            finals = sum([a.final for a in attempts])
            self._settle(job, units, attempts, profile)
            job.outstanding -= finals
            ended += finals
        return ended

    def _keep(self, job: Job, units: list[int], attempts: list[Attempt]) -> None:
        """Make attempts durable and count them; what was never sent is no attempt."""
        keys = self.keys(job.model, units)
        tried = [
            (key, a)
            for key, a in zip(keys, attempts, strict=True)
            if a.status not in NOT_ASKED or a.cost_usd
        ]
        if tried:
            try:
                self._ledger.record(self._run, job.identity, tried, self._lease)
            except LedgerError as error:
                # the ledger keeps them in memory; nothing more is asked, what is in flight ends
                self._failure = error
                self._gate.halt()
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
        message = self.book.errors.setdefault(prompt, self.book.why(answer))
        if self._on_error == "error" and self._failure is None:
            self._failure = reference_error(self._reference, answer.status, message)
            self._gate.halt()

    def _last_word(self, failure: SmartSQLError) -> SmartSQLError:
        """The error of the statement, told by what could be written in the end."""
        if not isinstance(failure, LedgerError):
            return failure
        try:
            self._ledger.save()
        except LedgerError as error:
            return error
        return failure.__cause__ if isinstance(failure.__cause__, LedgerError) else failure

    def _stop(self, job: Job, attempt: Attempt) -> None:
        if self._failure is not None:
            return
        refusal = self._gate.refusal
        if attempt.status == "budget" and refusal is not None:
            self._failure = refusal.error(job.left)
        else:
            self._failure = CancelledError("the statement was interrupted.")
        self._gate.halt()

    def _abandon(self, jobs: list[Job], profile: Profile) -> None:
        """Let what is in flight end for a moment, cancel the rest, keep what comes back."""
        self._gate.halt()
        grace = time.monotonic() + GRACE_S
        paid: list[Job] = []
        for job in jobs:
            if self._backends[job.model].price.is_free:
                job.cancelled.set()
            else:
                paid.append(job)
        while time.monotonic() < grace + PATIENCE_S:
            is_over = time.monotonic() >= grace
            # a free model may be in the midst of what cannot be ended; nothing is lost with it
            if not any(job.outstanding for job in (paid if is_over else jobs)):
                return
            if is_over:
                for job in jobs:
                    job.cancelled.set()
            self._receive(jobs, profile, timeout_s=0.05)
