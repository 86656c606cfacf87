"""The engine: answers the rows of one smart call, and remembers what it did."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event, Lock
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa

from smartsql.asking.again import Agreement, ask_again
from smartsql.asking.budget import Budget, Cap, DailyBudget
from smartsql.asking.collecting import RARE_COLLECTIONS
from smartsql.asking.drift import SAMPLE, Drift, with_rechecks
from smartsql.asking.exchange import Exchange, Progress
from smartsql.asking.memory import Memory, mixed
from smartsql.calls.work import Work, prepare
from smartsql.config.keys import Keyring
from smartsql.defined_tasks import DefinedTasks
from smartsql.errors import BudgetError
from smartsql.executor import Outcome, run
from smartsql.gateway import Backend
from smartsql.ledger import Ledger, Statement
from smartsql.ledger.prompts import keeper
from smartsql.ledger.served import comparisons
from smartsql.profile import Profile
from smartsql.reports.accounts import Answered, columns, made_report, of_those_asked
from smartsql.reports.jointly import Told, joined
from smartsql.reports.lost import told_of
from smartsql.reports.report import INCOMPLETE, Report
from smartsql.tasks import Task
from smartsql.types import Ask, IntArray, Plan, Requirement

if TYPE_CHECKING:
    from smartsql.config import Settings
    from smartsql.policies import Policy
    from smartsql.preview import Preview
    from smartsql.sql.protocol import Call

REMEMBERED_STATEMENTS = 1000
"""Statements whose budgets are remembered; a later call of an older one would get a new one."""
LONG_READY_S = 0.05
"""Less is not worth a sentence."""


class Engine:
    """Answers calls with the models of a configuration; safe for threads.

    Args:
        settings: the configuration.
        backends: the models by name, in the order of the configuration.
        store: where paid answers are kept.
        policy: how calls are answered; the certified procedure by default.
        progress: called with (model, done, total of this step, USD so far).
        keys: those of the models that are in secrets of DuckDB.

    Attributes:
        history: reports of the calls that were answered, oldest first.
    """

    def __init__(
        self,
        settings: Settings,
        backends: Mapping[str, Backend],
        store: Ledger,
        *,
        policy: Policy | None = None,
        progress: Progress | None = None,
        keys: Keyring | None = None,
    ) -> None:
        self.settings = settings
        self.keys = Keyring(()) if keys is None else keys
        self.backends = dict(backends)
        self.store = store
        self.tasks_by_name = DefinedTasks(settings, store)
        self.history: list[Report] = []
        self.progress = progress
        self._policy = policy
        self._lock = Lock()
        self._running: dict[Event, int | None] = {}
        self._budgets: OrderedDict[int | None, Budget] = OrderedDict()
        self._told: OrderedDict[int, list[Told]] = OrderedDict()
        self._session = Budget(settings.session_budget_usd, "session")
        daily = settings.daily_budget_usd
        self._daily = None if daily is None else DailyBudget(store, daily)

    def answer(self, call: Call, prompts: pa.Array, weights: IntArray) -> Answered:
        """Answer the distinct prompts of a call.

        Args:
            call: the call's text, delta, gamma and task.
            prompts: distinct, non-null texts; string array of shape (n,).
            weights: rows that carry each; shape (n,), at least 1.

        Raises:
            ParameterError: delta or gamma out of range.
            ConfigError: unknown task.
            GatewayError, BudgetError, CancelledError, LedgerError: see `Exchange.fulfil`.
        """
        with self._in_progress(call) as cancelled:
            self.keys.check()
            started = datetime.now(UTC), time.perf_counter()
            work = self.prepare(call, prompts, weights)
            return self._run(call, work, cancelled, *started)

    def prepare(self, call: Call, prompts: pa.Array, weights: IntArray) -> Work:
        """Everything about a call that is known before anything is asked."""
        requirement = Requirement(call.delta, call.gamma)
        task = _task(call, self.tasks_by_name)
        return prepare(requirement, task, prompts, weights, self.settings.models, self.backends)

    def preview(self, call: Call, prompts: pa.Array, weights: IntArray) -> Preview:
        """What a call would cost; asks no model."""
        from smartsql.preview import preview

        work = self.prepare(call, prompts, weights)
        again = self.settings.self_agreement + SAMPLE * self.settings.revalidate
        return preview(
            call.title,
            work.with_repeats() if again else work,
            self.backends,
            self.store,
            key=self._key(work),
            at_once={
                model.name: self.settings.max_in_flight if model.kind == "openai" else 1
                for model in self.settings.models
            },
            again=again,
            at_most=call.at_most,
        )

    def cancel(self, connection: int | None = None) -> None:
        """End the calls that a connection is running, or all; what came back is kept."""
        with self._lock:
            for cancelled, running in self._running.items():
                if connection is None or running == connection:
                    cancelled.set()

    @property
    def policy(self) -> Policy:
        """How calls are answered."""
        if self._policy is None:
            from smartsql.policies.certified import Certified

            self._policy = Certified()
        return self._policy

    def schema(self, table: str) -> pa.Schema:
        """Columns of "reports", "models", "ledger" or "tasks"."""
        from smartsql import tables
        from smartsql.defined_tasks import TASKS

        found = {"reports": tables.REPORTS, "models": tables.MODELS, "ledger": tables.ATTEMPTS}
        return (found | {"tasks": TASKS})[table]

    def reports(self) -> pa.Table:
        """One row a call of this session: the report's fields."""
        from smartsql.tables import reports

        return reports(self.history)

    def models(self) -> pa.Table:
        """Name, role, prices and where they come from, calls, tokens and spend."""
        from smartsql.tables import models

        return models(self.settings, self.backends, self.store)

    def ledger(self) -> pa.Table:
        """Every attempt that may have cost money."""
        from smartsql.tables import attempts

        return attempts(self.store)

    def tasks(self) -> pa.Table:
        """All tasks, those of the configuration and those defined with SQL."""
        return self.tasks_by_name.table()

    def define_task(self, task: Task, *, replace: bool) -> int:
        """Keep a task that SQL defines; its version. Errors: see `DefinedTasks.define`."""
        return self.tasks_by_name.define(task, replace=replace)

    def drop_task(self, name: str, *, missing_ok: bool) -> bool:
        """Drop a task that SQL defined. Errors: see `DefinedTasks.drop`."""
        return self.tasks_by_name.drop(name, missing_ok=missing_ok)

    def rehearse_task(self, name: str, task: Task | None, *, lenient: bool) -> None:
        """Define or drop a task without keeping it. Errors: see `DefinedTasks.rehearse`."""
        self.tasks_by_name.rehearse(name, task, lenient=lenient)

    def close(self) -> None:
        """Release models and the ledger."""
        for backend in self.backends.values():
            backend.close()
        self.store.close()

    @contextmanager
    def _in_progress(self, call: Call) -> Iterator[Event]:
        """A call that `cancel` can end."""
        cancelled = Event()
        with self._lock:
            self._running[cancelled] = call.connection
        if call.stopped is not None and call.stopped.is_set():
            cancelled.set()  # by somebody who came too early for `cancel`
        try:
            with RARE_COLLECTIONS:
                yield cancelled
        finally:
            with self._lock:
                del self._running[cancelled]

    def _budget(self, call: Call) -> Budget:
        """The money of the statement that a call stands in; its calls share it."""
        if call.statement is None:
            return Budget(self.settings.budget_usd)
        with self._lock:
            while len(self._budgets) >= REMEMBERED_STATEMENTS:
                self._budgets.popitem(last=False)
            return self._budgets.setdefault(call.statement, Budget(self.settings.budget_usd))

    def _caps(self, call: Call) -> list[Cap]:
        """All limits of money that a call is under."""
        caps: list[Cap] = [self._budget(call), self._session]
        return caps if self._daily is None else [*caps, self._daily]

    def _run(
        self, call: Call, work: Work, cancelled: Event, started_at: datetime, clock: float
    ) -> Answered:
        key = self._key(work)
        self.store.catch_up()
        memory = Memory(self.store, work)
        starts = memory.starts(key)
        statement = self.store.find_statement(key)
        if statement is None:
            statement = self.store.statement(key, self._statement(work, starts))
        work = replace(work.at_costs(statement.expected_costs), notes=(*work.notes, *memory.notes))
        if self.settings.self_agreement:
            work = work.with_repeats()
        on_demand = self.settings.revalidate
        work = with_rechecks(work, self.backends, on_demand=on_demand)
        time_of = comparisons(self.store, key) if on_demand else None
        run_id = self.store.begin_run(key)
        exchange = self._exchange(call, work, cancelled, run_id)
        drift = Drift(self.store, exchange, run_id, time_of)
        ready = exchange.ready_seconds()
        memory.begin(starts, exchange.learners)
        source = _Timed(exchange)
        problem = work.problem(statement.seed, statement.features)
        strategy = self.policy.name
        agreement: Agreement | None = None
        try:
            outcome = run(self.policy, problem, source)
            if self.settings.self_agreement:
                agreement, work = self._repeated(outcome, work, source)
            drifted = drift.findings(outcome, source)
        except BudgetError as error:
            if self.settings.on_budget == "error" or source.profile is None:
                raise
            outcome, strategy = _what_is_known(source.profile, str(error)), INCOMPLETE
            drifted = drift.findings(outcome, None)
        finally:
            self._leave(exchange)
        elapsed = time.perf_counter() - clock
        if work.unit == "s":
            work = replace(work, notes=(*work.notes, *_getting_ready(ready, exchange)))
        report = made_report(call.title, work, outcome, exchange, agreement)
        report = replace(
            report,
            seed=statement.seed,
            started_at=started_at.isoformat(timespec="seconds"),
            seconds=round(elapsed, 3),
            decide_s=round(elapsed - source.seconds, 3),
            run=run_id,
            statement=key.hex(),
            strategy=strategy,
            store=self.store.path,
            drift=drifted,
            models=of_those_asked(report.models, outcome.profile),
            notes=(*report.notes, *told_of(self.store.take_lost())),
        )
        report = self._joined(call, report)
        self.store.end_run(run_id, report.to_json())
        self.history.append(report)
        memory.keep(exchange.learners.learned(outcome.profile))
        return columns(work, outcome, exchange)

    def _leave(self, exchange: Exchange) -> None:
        """Release what was held for one run."""
        exchange.close()
        if self._daily is not None:
            self._daily.give_back()

    def _joined(self, call: Call, report: Report) -> Report:
        """The report with what holds of all promises of its statement so far."""
        if call.statement is None:
            return joined(call, report, ())
        with self._lock:
            while call.statement not in self._told and len(self._told) >= REMEMBERED_STATEMENTS:
                self._told.popitem(last=False)
            told = self._told.setdefault(call.statement, [])
            report = joined(call, report, told)
            told.append((call, report))
        return report

    def _exchange(self, call: Call, work: Work, cancelled: Event, run_id: int) -> Exchange:
        """Where the answers of one run come from."""
        names = [recipe.name for recipe in work.recipes]
        return Exchange(
            work.cells,
            {recipe.name: self.backends[recipe.backend] for recipe in work.recipes},
            dict(zip(names, work.identities, strict=True)),
            self.store,
            run_id,
            reference=names[0],
            recipes={recipe.name: recipe for recipe in work.recipes},
            in_seconds=work.unit == "s",
            on_error=self.settings.on_error,
            caps=self._caps(call),
            at_once=self.settings.max_in_flight,
            lease=None if self._daily is None else self._daily.lease,
            progress=self.progress,
            cancelled=cancelled,
            keep_prompts=keeper(self.store) if self.settings.store_prompts else None,
        )

    def _repeated(
        self, outcome: Outcome, work: Work, source: _Timed
    ) -> tuple[Agreement | None, Work]:
        """How often the reference repeats its answers; answers do not wait for it in vain."""
        try:
            return ask_again(outcome.profile, source, self.settings.self_agreement), work
        except BudgetError as error:
            note = f"The reference was not asked again as often as wanted: {error}"
            return None, replace(work, notes=(*work.notes, note))

    def _key(self, work: Work) -> bytes:
        """Key of the statement; see `Work.key`."""
        return work.key(self.policy.name, self.settings.seed)

    def _statement(self, work: Work, starts: Mapping[str, str]) -> Statement:
        configured = self.settings.seed
        seed = secrets.randbits(48) if configured is None else mixed(configured, starts)
        return Statement(seed, work.prompts, work.weights, work.expected_costs, work.features())


class _Timed:
    """The exchange, with the time spent in it."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.seconds = 0.0
        self.profile: Profile | None = None

    def fulfil(self, asks: Sequence[Ask], profile: Profile) -> None:
        self.profile = profile
        start = time.perf_counter()
        try:
            self._exchange.fulfil(asks, profile)
        finally:
            self.seconds += time.perf_counter() - start


def _task(call: Call, tasks: DefinedTasks) -> Task:
    """The task of a call: its own where its answers have a type, else one of the configuration."""
    if call.kind == "llm":
        return tasks.task(call.task)
    from smartsql.calls.typed import TypedKind, task_of

    return task_of(cast("TypedKind", call.kind), call.options)


def _getting_ready(before: Mapping[str, float], exchange: Exchange) -> list[str]:
    """Sentences on the seconds that are in no answer's cost."""
    return [
        f"{name} took {seconds - before[name]:.1f} s to load or to be trained, which no cost of "
        f"an answer contains."
        for name, seconds in exchange.ready_seconds().items()
        if seconds - before[name] >= LONG_READY_S
    ]


def _what_is_known(profile: Profile, why: str) -> Outcome:
    """The outcome when the money ran out: reference answers, and none for the other rows."""
    reference = profile.problem.reference.name
    answered_by = np.where(profile.codes(reference) >= 0, 0, -1).astype(np.int64)
    plan = Plan(answered_by, bound=0.0, notes=(why,))
    return Outcome(plan, answered_by, profile, rounds=0)
