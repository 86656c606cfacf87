"""Check a report against the ledger, offline: same rows, same order, same audit, same bound.

The decisions of a call are a function of its rows, the seed and the answers. All three are in the
ledger, so the whole procedure is run again with the ledger as the only source of answers; a
single answer that was changed, removed or invented leads elsewhere or is missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa

from smartsql.book import Cells
from smartsql.errors import VerificationError
from smartsql.exchange import Exchange, Job
from smartsql.executor import Outcome, run
from smartsql.gateway import Allowance, Attempts, Price, Request
from smartsql.ledger import Ledger, Statement, Stored
from smartsql.policies import Policy
from smartsql.policies.reference import Reference
from smartsql.population import DIGEST_BYTES
from smartsql.profile import Profile
from smartsql.report import Report, report_from_dict
from smartsql.tasks import Task
from smartsql.types import Candidate, Requirement
from smartsql.work import Work, answers_digest, rows_digest


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was re-checked."""

    what: str
    holds: bool
    detail: str


def verify(report: dict[str, Any], ledger: Ledger) -> list[Check]:
    """Re-check a report; every check that does not hold says what was expected and found.

    Raises:
        VerificationError: it is not a report, or the ledger does not hold its rows.
    """
    try:
        said = report_from_dict(report)
    except ValueError as error:
        raise VerificationError(f"this file is not a report of smartsql: {error}") from error
    statement = ledger.find_statement(bytes.fromhex(said.statement))
    if statement is None:
        raise VerificationError(
            f"the ledger {ledger.path!r} holds no statement {said.statement}; the report was made "
            f"with {said.store!r} (give it with --store)."
        )
    checks = [_rows(said, statement), _seed(said, statement), _spend(said, ledger)]
    if not all(check.holds for check in checks[:2]):
        return checks
    try:
        outcome = _again(said, statement, ledger)
    except VerificationError as error:
        return [*checks, Check("answers", False, str(error))]
    return [*checks, *_decisions(said, outcome, statement), *_certificate(said)]


def _equal(what: str, said: object, found: object) -> Check:
    if isinstance(said, float) and isinstance(found, float):
        holds = bool(np.isclose(said, found, rtol=1e-9, atol=1e-12))
    else:
        holds = said == found
    detail = f"{found}" if holds else f"the report says {said}, the ledger leads to {found}"
    return Check(what, holds, detail)


def _rows(said: Report, statement: Statement) -> Check:
    found = rows_digest(statement.prompts, statement.weights)
    if found == said.rows_digest and int(statement.weights.sum()) == said.rows:
        detail = f"{said.rows:,} rows, {statement.weights.size:,} distinct prompts, {found}"
        return Check("rows", True, detail)
    return _equal("rows", (said.rows, said.rows_digest), (int(statement.weights.sum()), found))


def _seed(said: Report, statement: Statement) -> Check:
    return _equal("seed of the order", said.seed, statement.seed)


def _spend(said: Report, ledger: Ledger) -> Check:
    _, usd, seconds = ledger.spend_of_run(said.run)
    found = usd if said.unit == "usd" else seconds
    holds = bool(np.isclose(found, said.spend, rtol=1e-6, atol=1e-9))
    detail = said.money(found) if holds else f"report {said.spend!r}, ledger {found!r}"
    return Check("spend of the run", holds, detail)


def _again(said: Report, statement: Statement, ledger: Ledger) -> Outcome:
    """The whole procedure, with the ledger as the only source."""
    raw = statement.prompts
    digests = [raw[i : i + DIGEST_BYTES] for i in range(0, len(raw), DIGEST_BYTES)]
    definition = said.task_definition
    task = Task(said.task, None, tuple(definition["labels"]), definition["equal"])
    cells = Cells(pa.nulls(len(digests), pa.string()), task, digests)
    requirement = Requirement(said.delta, said.gamma)
    models = tuple(Candidate(m.name, m.expected_cost, m.learns) for m in said.models)
    order = np.arange(len(digests), dtype=np.int64)
    work = Work(requirement, cells, raw, order, statement.weights, models, said.unit, ())
    backends = {m.name: _Absent(m.name, m.identity) for m in said.models}
    source = _FromLedger(
        cells,
        backends,
        ledger,
        said.run,
        reference=models[0].name,
        in_seconds=said.unit == "s",
        on_error="null",
    )
    return run(_policy(said.strategy), work.problem(said.seed), source)


def _policy(strategy: str) -> Policy:
    if strategy == "reference":
        return Reference()
    if strategy != "certified":
        raise VerificationError(f"strategy {strategy!r} gives no promise that could be checked.")
    from smartsql.policies.certified import Certified

    return Certified()


def _decisions(said: Report, outcome: Outcome, statement: Statement) -> list[Check]:
    plan = outcome.plan
    lost = (outcome.answered_by == 0) & (
        outcome.profile.codes(outcome.profile.problem.reference.name) < 0
    )
    lost_share = float(statement.weights[lost].sum()) / max(said.rows, 1)
    return [
        _equal("rows of the pilot", said.pilot_rows, plan.pilot_rows),
        _equal("rows of the audit", said.audited_rows, plan.audited_rows),
        _equal("who answers each row", said.answers_digest, answers_digest(outcome.answered_by)),
        _equal("bound", said.bound, min(1.0, plan.bound + lost_share)),
        Check(
            "certificate of the run",
            _same(said.certificate, plan.certificate),
            "equal to the one the ledger leads to"
            if _same(said.certificate, plan.certificate)
            else "differs from the one the ledger leads to",
        ),
    ]


def _same(a: Any, b: Any) -> bool:
    """Equal as JSON, numbers up to rounding."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) or isinstance(b, float):
        return bool(np.isclose(a, b, rtol=1e-9, atol=1e-12))
    return bool(a == b)


def _certificate(said: Report) -> list[Check]:
    """The risk of the design, computed anew from the certificate alone."""
    if said.strategy == "reference":
        return []
    from smartsql.policies.certificate import recheck

    wrong = recheck(said.certificate)
    return [
        Check("risk of the design", not wrong, "; ".join(wrong) or f"at most {1 - said.gamma:.3g}")
    ]


class _FromLedger(Exchange):
    """An exchange that asks nobody: answers are in the ledger, or failed in the run."""

    asks_again = False

    def _lookup(self, model: str, identity: int, prompts: list[int]) -> dict[int, Stored]:
        # what failed in the run counts as failed, whatever was answered later
        found = super()._lookup(model, identity, prompts)
        failed = self._ledger.failed(self._run, identity)
        return {i: s for i, s in found.items() if self._cells.digests[i] not in failed}

    def _work(self, jobs: list[Job], profile: Profile, total: int) -> None:
        for job in jobs:
            failed = self._ledger.failed(self._run, job.identity)
            digests = self.book.digests_of(job.todo.tolist())
            missing = [d.hex() for d in digests if d not in failed]
            if missing:
                raise VerificationError(
                    f"{len(missing):,} answers of {job.model!r} that the procedure asks for are "
                    f"not in the ledger (the first: prompt {missing[0]})"
                )
            answers = [Stored("failed", None, None, *failed[d]) for d in digests]
            if answers:
                self.book.enter(job.model, job.todo.tolist(), answers, profile)


class _Absent:
    """A model as the report describes it; it cannot be asked."""

    claims = False
    price = Price(0.0, 0.0, "not asked")

    def __init__(self, name: str, identity: str) -> None:
        self.name = name
        self._identity = identity

    def identity(self, labels: tuple[str, ...]) -> str:
        return self._identity

    def expected_cost_usd(self, request: Request) -> float:
        return 0.0

    def fork(self) -> _Absent:
        return self

    def fit(self, inputs: Sequence[str], answers: Sequence[str]) -> None:
        """Nothing to train: the answers of the trained model are in the ledger."""

    def start(
        self,
        requests: Sequence[Request],
        labels: tuple[str, ...],
        out: Attempts,
        cancelled: Event,
        allowance: Allowance | None = None,
    ) -> None:
        raise VerificationError(f"{self.name} was to be asked during a verification")

    def close(self) -> None:
        """Nothing to release."""
