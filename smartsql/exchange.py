"""The exchange: asks go to the ledger first, then to the models; answers come back durable.

This is the `Source` of a live statement. It owns everything that touches the outside, so that
policies stay pure: lookups, claims, requests in flight, the budget, retries' bills, cancellation.
"""

from __future__ import annotations

import hashlib
import queue
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Literal

import numpy as np
import pyarrow as pa

from smartsql.budget import Budget
from smartsql.errors import (
    AnswerFormatError,
    BudgetError,
    CancelledError,
    GatewayError,
    RateLimitError,
    SmartSQLError,
)
from smartsql.gateway import DELIVERED, Attempt, Attempts, Backend, LearningBackend, Price, Request
from smartsql.ledger import LEASE_S, Ledger, Stored
from smartsql.profile import Profile
from smartsql.readings import Readings
from smartsql.tally import Tally
from smartsql.tasks import Task
from smartsql.types import FAILED, Ask, BoolArray, IntArray

Progress = Callable[[str, int, int, float], None]
"""Called with (model, done, total of this step, USD so far)."""

SLICE = 32_768
"""Requests handed to a backend at once; bounds the memory of a large statement."""
_MODEL_BIT = 40
_PROMPT_MASK = (1 << _MODEL_BIT) - 1
_NOT_ASKED = frozenset({"budget", "cancelled"})
_PATIENCE_S = 15.0
POLL_S = 0.05
"""How often the answers of others are looked for."""


@dataclass(slots=True)
class Job:
    """Prompts that one model is being asked in this step."""

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


@dataclass(frozen=True, slots=True)
class Cells:
    """The distinct cells of a call, in the order of their digests.

    So nothing that is decided later depends on how the table is stored.

    Attributes:
        texts: one text for each; string array of shape (n_prompts,).
        task: how a cell becomes a prompt.
        digests: of the rendered prompts, ascending; 16 bytes each.
    """

    texts: pa.Array
    task: Task
    digests: Sequence[bytes]


class Exchange:
    """Where a live statement's answers come from (an `executor.Source`).

    Args:
        cells: what is asked.
        backends: the models by name; the reference among them.
        reference: name of the reference model.
        in_seconds: costs are measured seconds instead of dollars.
        on_error: "error" stops at the first row that the reference fails for good.
        progress: called with (model, done, total of this step, USD so far).
        cancelled: set from outside to end the statement.
    """

    def __init__(
        self,
        cells: Cells,
        backends: Mapping[str, Backend],
        ledger: Ledger,
        run: int,
        *,
        reference: str,
        in_seconds: bool = False,
        on_error: Literal["error", "null"] = "error",
        budget: Budget | None = None,
        progress: Progress | None = None,
        cancelled: Event | None = None,
    ) -> None:
        self._cells = cells
        self._backends = dict(backends)
        self._forks: dict[str, LearningBackend] = {}
        self._ledger = ledger
        self._run = run
        self._reference = reference
        self._in_seconds = in_seconds
        self._on_error = on_error
        self.budget = budget or Budget(None)
        self._progress = progress
        self._cancelled = cancelled or Event()
        self._owner = uuid.uuid4().hex
        self._readings = Readings(cells.task)
        self._queue: Attempts = queue.SimpleQueue()
        n = len(cells.digests)
        self.text_of = {name: np.full(n, -1, dtype=np.int32) for name in backends}
        self.was_cached = {name: np.zeros(n, dtype=np.bool_) for name in backends}
        self.tallies = {name: Tally() for name in backends}
        self.paid_usd = np.zeros(n, dtype=np.float64)
        self.errors: dict[int, str] = {}
        self.identities = {
            name: backend.identity(cells.task.labels) for name, backend in backends.items()
        }
        self._trained: dict[str, str] = {}
        self._failure: SmartSQLError | None = None
        self._has_claimed = False

    asks_again = True
    """Whether the reference is asked again what it failed to answer earlier."""

    @property
    def texts(self) -> list[str]:
        """Answer texts; `text_of` holds positions in this list."""
        return self._readings.texts

    def price_of(self, model: str) -> Price:
        """What the model's tokens cost."""
        return self._backends[model].price

    def error_texts(self, prompts: IntArray) -> dict[int, str]:
        """Why each of these prompts has no answer."""
        return {i: self.errors.get(i, "not asked: the budget is used up") for i in prompts.tolist()}

    def close(self) -> None:
        """Release what was made for this statement alone."""
        for fork in self._forks.values():
            fork.close()

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
                self._fit(ask.model, profile)
        jobs: list[Job] = []
        try:
            jobs += [self._job(ask, profile) for ask in asks if ask.prompts.size]
            self._work(jobs, profile, sum(job.todo.size + job.elsewhere.size for job in jobs))
        except BaseException:
            self._abandon(jobs, profile)
            raise
        finally:
            if self._has_claimed:
                self._ledger.release(self._owner)
        if self._failure:
            raise self._failure

    def _fit(self, model: str, profile: Profile) -> None:
        """Train a learning model on all reference answers that are known."""
        known = np.flatnonzero(profile.codes(self._reference) >= 0)
        texts = self.texts
        answers = [texts[i] for i in self.text_of[self._reference][known].tolist()]
        if model not in self._forks:
            shared: LearningBackend = self._backends[model]  # type: ignore[assignment]
            # statements that run at the same time must not train each other's model
            self._forks[model] = self._backends[model] = shared.fork()
        self._forks[model].fit(self._cells.texts.take(pa.array(known)).to_pylist(), answers)
        self._trained[model] = training_digest(
            [self._cells.digests[i] for i in known.tolist()], answers
        )

    def _job(self, ask: Ask, profile: Profile) -> Job:
        """The prompts of an ask that are not in the ledger; those that are go to the profile."""
        identity = self._ledger.identity(ask.model, self.identity_of(ask.model))
        job = Job(ask.model, identity, np.sort(ask.prompts), Event())
        known, version = self._take_stored(job, job.todo, profile), self._ledger.version()
        job.todo = job.todo[~known]
        if self._backends[ask.model].claims:
            self._claim(job)
            # between our lookup and our claim another owner may have paid and let go
            if self._ledger.version() != version:
                job.todo = job.todo[~self._take_stored(job, job.todo, profile)]
        return job

    def _claim(self, job: Job) -> None:
        """Keep those prompts to do that nobody else is asking right now."""
        self._has_claimed = True
        mine = np.ones(job.todo.size, dtype=np.bool_)
        for start in range(0, job.todo.size, SLICE):
            digests = [self._cells.digests[i] for i in job.todo[start : start + SLICE].tolist()]
            others = self._ledger.claim(job.identity, digests, self._owner)
            if others:
                mine[start : start + SLICE] = [d not in others for d in digests]
        job.elsewhere = job.todo[~mine]
        job.todo = job.todo[mine]

    def _take_over(self, job: Job, profile: Profile) -> None:
        """See what became of the prompts that others were asking."""
        waiting = job.elsewhere[~self._take_stored(job, job.elsewhere, profile)]
        later = Job(job.model, job.identity, waiting, job.cancelled)
        self._claim(later)
        job.elsewhere, job.position = later.elsewhere, 0
        job.todo = later.todo[~self._take_stored(job, later.todo, profile)]

    def _take_stored(self, job: Job, prompts: IntArray, profile: Profile) -> BoolArray:
        """Record what the ledger holds; which of the prompts that were; shape of `prompts`."""
        found = np.zeros(prompts.size, dtype=np.bool_)
        for start in range(0, prompts.size, SLICE):
            some = prompts[start : start + SLICE].tolist()
            stored = self._lookup(job.model, job.identity, some)
            self._record_stored(job.model, stored, profile)
            if stored:
                found[start : start + SLICE] = [prompt in stored for prompt in some]
        return found

    def identity_of(self, model: str) -> str:
        """The identity under which a model's answers are stored now."""
        trained = self._trained.get(model)
        return self.identities[model] + (f" trained on {trained}" if trained else "")

    def _lookup(self, model: str, identity: int, prompts: list[int]) -> dict[int, Stored]:
        digests = [self._cells.digests[i] for i in prompts]
        found = self._ledger.lookup(identity, digests)
        if not found:
            return {}
        # what the reference failed to answer is asked again, what a candidate failed is known
        again = self.asks_again and model == self._reference
        return {
            prompt: found[d]
            for prompt, d in zip(prompts, digests, strict=True)
            if d in found and not (again and found[d].status != "ok")
        }

    def _record_stored(self, model: str, stored: dict[int, Stored], profile: Profile) -> None:
        if stored:
            prompts = list(stored)
            self.tallies[model].cached += len(stored)
            self.was_cached[model][prompts] = True
            self._to_profile(model, prompts, list(stored.values()), profile)

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
                self._progress(jobs[0].model, done, total, self.budget_spent)
            if self._has_claimed and time.monotonic() > next_renewal:
                self._ledger.renew(self._owner)
                next_renewal = time.monotonic() + LEASE_S / 3
        self._check_cancelled()

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise CancelledError(
                "the statement was interrupted; the answers that came back are kept."
            )

    @property
    def budget_spent(self) -> float:
        """USD spent in this statement so far, failed attempts included."""
        return sum(tally.cost_usd for tally in self.tallies.values())

    def _start(self, number: int, job: Job, profile: Profile) -> None:
        """Hand the next slice to the backend."""
        if job.position >= job.todo.size and job.elsewhere.size:
            time.sleep(POLL_S)
            self._take_over(job, profile)
        prompts = job.todo[job.position : job.position + SLICE].tolist()
        if not prompts:
            return
        job.position += len(prompts)
        job.outstanding = len(prompts)
        self._backends[job.model].start(
            self._requests(number, prompts),
            self._cells.task.labels,
            self._queue,
            job.cancelled,
            self.budget,
        )

    def _requests(self, number: int, prompts: list[int]) -> list[Request]:
        offset = number << _MODEL_BIT
        texts = self._cells.texts.take(pa.array(prompts, pa.int64())).to_pylist()
        rendered = self._cells.task.rendered(texts)
        return [
            Request(offset | prompt, text, sent)
            for prompt, text, sent in zip(prompts, texts, rendered, strict=True)
        ]

    def _receive(self, jobs: list[Job], profile: Profile, timeout_s: float) -> int:
        """Take what has arrived: to the ledger first, then to the profile."""
        ended = 0
        for number, attempts in self._drain(timeout_s).items():
            job = jobs[number]
            prompts = [a.index & _PROMPT_MASK for a in attempts]
            self._keep(job, prompts, attempts)
            finals = sum([a.final for a in attempts])
            self._settle(job, prompts, attempts, profile)
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

    def _keep(self, job: Job, prompts: list[int], attempts: list[Attempt]) -> None:
        """Make attempts durable and count them; what was never sent is no attempt."""
        digests = self._cells.digests
        tried = [
            (digests[prompt], a)
            for prompt, a in zip(prompts, attempts, strict=True)
            if a.status not in _NOT_ASKED or a.cost_usd
        ]
        if tried:
            self._ledger.record(self._run, job.identity, tried)
        self.tallies[job.model].add(attempts)
        np.add.at(self.paid_usd, prompts, [a.cost_usd for a in attempts])

    def _settle(
        self, job: Job, prompts: list[int], attempts: list[Attempt], profile: Profile
    ) -> None:
        """Take final attempts to the profile."""
        if any(a.status != "ok" for a in attempts):
            for prompt, a in zip(prompts, attempts, strict=True):
                if a.status in _NOT_ASKED:
                    self._stop(job, a)
                elif a.final and a.status not in DELIVERED:
                    self.errors[prompt] = a.error or a.status
            kept = [
                (prompt, a)
                for prompt, a in zip(prompts, attempts, strict=True)
                if a.final and a.status not in _NOT_ASKED
            ]
            prompts, attempts = [prompt for prompt, _ in kept], [a for _, a in kept]
        if attempts:
            self._to_profile(job.model, prompts, attempts, profile)

    def _to_profile(
        self, model: str, prompts: list[int], answers: Sequence[Stored | Attempt], profile: Profile
    ) -> None:
        """Read raw answers and record them."""
        raw = [a.text if a.status == "ok" else None for a in answers]
        codes, texts = self._readings.read(raw)
        at = np.array(prompts, dtype=np.int64)
        self.text_of[model][at] = texts
        costs = [a.seconds for a in answers] if self._in_seconds else [a.cost_usd for a in answers]
        confidences = np.array([a.confidence for a in answers], dtype=np.float64)
        has_confidence = not np.isnan(confidences).all()
        profile.record(model, at, codes, np.array(costs), confidences if has_confidence else None)
        failed = np.flatnonzero(codes == FAILED).tolist()
        self.tallies[model].failed += len(failed)
        if model == self._reference:
            for k in failed:
                self._reference_failed(prompts[k], answers[k].status, answers[k].text)

    # --- unhappy ends ------------------------------------------------------------------------

    def _reference_failed(self, prompt: int, status: str, text: str | None) -> None:
        message = self.errors.setdefault(prompt, _why(status, text, self._cells.task))
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
            self.budget.halt()

    def _stop(self, job: Job, attempt: Attempt) -> None:
        if self._failure is not None:
            return
        if attempt.status == "budget" and self.budget.exhausted:
            limit = self.budget.limit_usd or 0.0
            left = job.outstanding + job.todo.size - job.position
            self._failure = BudgetError(limit, self.budget_spent, left)
        else:
            self._failure = CancelledError("the statement was interrupted.")
        self.budget.halt()

    def _abandon(self, jobs: list[Job], profile: Profile) -> None:
        """Cancel what is in flight and keep what comes back."""
        self.budget.halt()
        for job in jobs:
            job.cancelled.set()
        deadline = time.monotonic() + _PATIENCE_S
        while any(job.outstanding for job in jobs) and time.monotonic() < deadline:
            self._receive(jobs, profile, timeout_s=0.1)


def training_digest(digests: Sequence[bytes], answers: Sequence[str]) -> str:
    """What a learning model was trained on, as a short text."""
    total = hashlib.blake2b(digest_size=16)
    for d, answer in zip(digests, answers, strict=True):
        total.update(d + answer.encode("utf-8", "surrogatepass") + b"\0")
    return total.hexdigest()


def _why(status: str, text: str | None, task: Task) -> str:
    if status == "ok" and task.labels:
        shown = repr((text or "")[:60])
        return f"it answered {shown}, which is none of the labels {list(task.labels)}"
    return {
        "ok": f"its answer is no usable value ({(text or '')[:60]!r})",
        "empty": "its answer is empty",
        "cut": "its answer was cut off at the length limit (raise max_completion_tokens)",
        "refused": "it refused to answer",
    }.get(status, status)
