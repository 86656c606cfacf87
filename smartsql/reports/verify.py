"""Check a report against the ledger, offline: same rows, same order, same audit, same bound.

The decisions of a call are a function of its rows, the seed and the answers. All three are in the
ledger, so the whole procedure is run again with the ledger as the only source of answers; a
single answer that was changed, removed or invented leads elsewhere or is missed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa

from smartsql.asking.again import ask_again
from smartsql.asking.drift import Drift
from smartsql.asking.exchange import Exchange
from smartsql.asking.learners import TRAINED
from smartsql.asking.sending import Job
from smartsql.calls.cells import Cells
from smartsql.calls.recipes import Recipe
from smartsql.calls.work import Work, rows_digest
from smartsql.errors import VerificationError
from smartsql.executor import run
from smartsql.gateway import Allowance, Attempts, Hint, Price, Request
from smartsql.ledger import Ledger, Statement, Stored
from smartsql.policies import Policy
from smartsql.policies.reference import Reference
from smartsql.population import DIGEST_BYTES
from smartsql.profile import Profile
from smartsql.reports.accounts import made_report
from smartsql.reports.report import INCOMPLETE, ModelReport, Report, report_from_dict
from smartsql.tasks import Task
from smartsql.types import Requirement


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
    checks = [_rows(said, statement), _seed(said, statement), *_spend(said, ledger)]
    checks.append(_as_kept(report, said, ledger))
    said = _in_todays_words(said)
    if said.strategy == INCOMPLETE or not all(check.holds for check in checks[:2]):
        return checks
    try:
        again = _again(said, statement, ledger)
    except VerificationError as error:
        return [*checks, Check("answers", False, str(error))]
    return [*checks, *_decisions(said, again), *_certificate(said)]


def _in_todays_words(said: Report) -> Report:
    """A report of the time before routing, when "certified" was the exact audit alone."""
    if said.certificate.get("procedure") != "certified":
        return said
    certificate = {**said.certificate, "procedure": "exact"}
    return replace(said, certificate=certificate, strategy="certified-blind")


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


def _spend(said: Report, ledger: Ledger) -> list[Check]:
    """What the run cost, in all and by model, as the ledger has it."""
    _, usd, seconds = ledger.spend_of_run(said.run)
    totals = ledger.totals_of_run(said.run)
    trained = {m.identity: m.name for m in said.models}
    found = {m.name: [0, 0.0] for m in said.models}
    for identity, (calls, cost) in totals.items():
        name = trained.get(identity.partition(TRAINED)[0])
        if name is not None:
            found[name][0] += calls
            found[name][1] += cost
    return [
        _close("spend of the run", said.spend, usd if said.unit == "usd" else seconds),
        _close("dollars of the run", said.spend_usd, usd),
        _equal("calls of the run", [m.calls for m in said.models], [c for c, _ in found.values()]),
        *(
            _close(f"dollars for {m.name}", m.cost_usd, found[m.name][1])
            for m in said.models
            if m.cost_usd or found[m.name][1]
        ),
    ]


def _close(what: str, said: float, found: float) -> Check:
    """Equal up to the rounding of a sum."""
    holds = bool(np.isclose(found, said, rtol=1e-6, atol=1e-9))
    detail = f"{found:.6g}" if holds else f"the report says {said!r}, the ledger {found!r}"
    return Check(what, holds, detail)


def _as_kept(report: dict[str, Any], said: Report, ledger: Ledger) -> Check:
    """The ledger keeps a copy of each report."""
    kept = ledger.report_of_run(said.run)
    holds = kept is not None and _same(json.loads(kept), report)
    detail = "equal to the copy in the ledger" if holds else "differs from the ledger's copy"
    return Check("the report itself", holds, detail)


def _again(said: Report, statement: Statement, ledger: Ledger) -> Report:
    """The report to which the whole procedure leads, with the ledger as the only source."""
    raw = statement.prompts
    digests = [raw[i : i + DIGEST_BYTES] for i in range(0, len(raw), DIGEST_BYTES)]
    definition = said.task_definition
    task = Task(
        said.task,
        None,
        tuple(definition["labels"]),
        definition["equal"],
        kind=definition.get("kind", "llm"),
        options=definition.get("options", ""),
    )
    cells = Cells(pa.nulls(len(digests), pa.string()), task, digests)
    requirement = Requirement(said.delta, said.gamma)
    identities = {m.name: m.identity for m in said.models}
    recipes = {m.name: _recipe(m) for m in said.models}
    work = Work(
        requirement,
        cells,
        raw,
        np.arange(len(digests), dtype=np.int64),
        statement.weights,
        tuple(recipes.values()),
        tuple(m.expected_cost for m in said.models),
        tuple(identities.values()),
        frozenset(m.name for m in said.models if m.learns),
        said.unit,
        (),
    )
    backends = {m.name: _Absent(m.name, m.identity) for m in said.models}
    source = _FromLedger(
        cells,
        backends,
        identities,
        ledger,
        said.run,
        reference=said.models[0].name,
        recipes=recipes,
        in_seconds=said.unit == "s",
        on_error="null",
    )
    problem = work.problem(said.seed, statement.features)
    outcome = run(_policy(said.strategy), problem, source)
    agreement = None
    if said.self_agreement:
        agreement = ask_again(outcome.profile, source, said.self_agreement["asked"])
    drift = Drift(ledger, source, said.run)
    found = tuple(drift.repeated(finding, outcome, source) for finding in said.drift)
    return replace(made_report(said.call, work, outcome, source, agreement), drift=found)


def _recipe(model: ModelReport) -> Recipe:
    """How the calls of a model were made, as far as decisions depend on it."""
    if model.recipe:
        return Recipe.from_facts({**model.recipe, "name": model.name})
    return Recipe(model.name, model.name, model.role)  # type: ignore[arg-type]


def _policy(strategy: str) -> Policy:
    if strategy == "reference":
        return Reference()
    if strategy == "certified-blind":
        from smartsql.policies.exact.exact import Exact

        return Exact()
    if strategy != "certified":
        raise VerificationError(f"strategy {strategy!r} gives no promise that could be checked.")
    from smartsql.policies.certified import Certified

    return Certified()


DECIDED = {
    "prompts": "distinct prompts",
    "pilot_rows": "rows of the pilot",
    "audited_rows": "rows of the audit",
    "answers_digest": "who answers each row",
    "assigned_rows": "rows of candidates",
    "reference_rows": "rows of the reference",
    "error_rows": "rows without an answer",
    "bound": "bound",
    "reference_spend": "spend of the reference alone",
    "reference_spend_usd": "dollars of the reference alone",
    "self_agreement": "answers that the reference repeated",
    "drift": "models compared with their earlier answers",
}


def _decisions(said: Report, again: Report) -> list[Check]:
    """What the procedure decided, compared with what it decides now."""
    rows = [(m.name, m.rows) for m in said.models], [(m.name, m.rows) for m in again.models]
    same = _same(said.certificate, again.certificate)
    verdict = "equal to" if same else "differs from"
    return [
        *(
            _equal(what, getattr(said, name), getattr(again, name))
            for name, what in DECIDED.items()
        ),
        _equal("rows by model", *rows),
        Check("certificate of the run", same, f"{verdict} the one the ledger leads to"),
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
    from smartsql.policies.recheck import recheck

    wrong = recheck(said.certificate)
    return [
        Check("risk of the design", not wrong, "; ".join(wrong) or f"at most {1 - said.gamma:.3g}")
    ]


class _FromLedger(Exchange):
    """An exchange that asks nobody: answers are in the ledger, or failed in the run."""

    asks_again = False

    def _lookup(self, model: str, identity: int, units: list[int]) -> dict[int, Stored]:
        # what failed in the run counts as failed, whatever was answered later
        found = super()._lookup(model, identity, units)
        failed = self._ledger.failed(self._run, identity)
        keys = dict(zip(units, self.keys(model, units), strict=True)) if failed else {}
        return {unit: s for unit, s in found.items() if keys.get(unit) not in failed}

    def _work(self, jobs: list[Job], profile: Profile, total: int) -> None:
        for job in jobs:
            failed = self._ledger.failed(self._run, job.identity)
            digests = self.keys(job.model, job.todo.tolist())
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

    def fork(self, start: object = None) -> _Absent:
        return self

    def fit(
        self, inputs: Sequence[str], answers: Sequence[str], hints: Sequence[Hint] = ()
    ) -> None:
        """Nothing to train: the answers of the trained model are in the ledger."""

    def learned(self) -> None:
        """Nothing: it was not trained here."""

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
