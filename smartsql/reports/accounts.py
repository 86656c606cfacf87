"""From an answered problem to what users get: columns and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from smartsql import __version__
from smartsql.asking.again import Agreement
from smartsql.asking.exchange import Exchange
from smartsql.calls.work import Work, answers_digest, rows_digest
from smartsql.executor import Outcome
from smartsql.profile import Profile
from smartsql.reports.report import ModelReport, Report
from smartsql.tasks import Task
from smartsql.templates import recheck_name
from smartsql.types import BoolArray, IntArray


@dataclass(frozen=True, slots=True)
class Answered:
    """The answered set: one entry for each distinct prompt, in the order they were given."""

    answer: pa.Array
    model: pa.Array
    source: pa.Array
    confidence: pa.Array
    cost_usd: pa.Array
    error: pa.Array


_BLANK: dict[str, Any] = {
    "seed": 0,
    "started_at": "",
    "seconds": 0.0,
    "decide_s": 0.0,
    "run": 0,
    "statement": "",
    "strategy": "",
    "store": "",
}
"""What the engine alone knows."""


def without_answer(outcome: Outcome) -> BoolArray:
    """Prompts that the reference was to answer and did not; shape (n_prompts,)."""
    reference = outcome.profile.problem.reference.name
    failed = outcome.profile.codes(reference) < 0
    return np.asarray((outcome.answered_by < 0) | ((outcome.answered_by == 0) & failed))


def made_report(
    call: str,
    work: Work,
    outcome: Outcome,
    exchange: Exchange,
    agreement: Agreement | None = None,
) -> Report:
    """The report of a call; the engine adds what it alone knows."""
    profile, plan = outcome.profile, outcome.plan
    weights, answered_by = work.weights, outcome.answered_by
    n_rows = int(weights.sum())
    lost = without_answer(outcome)
    error_rows = int(weights[lost].sum())
    reference = work.models[0].name
    reference_spend = profile.mean_cost(reference) * weights.size
    spend_usd = exchange.book.spent_usd
    spend_s = sum(tally.seconds for tally in exchange.book.tallies.values())
    task = work.cells.task
    return Report(
        call=call,
        task=task.name,
        task_definition=definition_of(task),
        rows=n_rows,
        prompts=int(weights.size),
        delta=work.requirement.delta,
        gamma=work.requirement.gamma,
        # a row without an answer differs from the reference, whoever was to answer it
        bound=min(1.0, plan.bound + error_rows / max(n_rows, 1)),
        unit=work.unit,
        spend=spend_usd if work.unit == "usd" else spend_s,
        reference_spend=reference_spend,
        spend_usd=spend_usd,
        reference_spend_usd=reference_spend if work.unit == "usd" else 0.0,
        pilot_rows=plan.pilot_rows,
        audited_rows=plan.audited_rows,
        assigned_rows=int(weights[answered_by > 0].sum()),
        reference_rows=int(weights[(answered_by == 0) & ~lost].sum()),
        error_rows=error_rows,
        rounds=outcome.rounds,
        models=tuple(_model_report(i, work, outcome, exchange) for i in range(len(work.recipes))),
        self_agreement=agreement,
        certificate=plan.certificate,
        notes=(*work.notes, *plan.notes),
        rows_digest=rows_digest(work.prompts, weights),
        answers_digest=answers_digest(answered_by),
        version=__version__,
        **_BLANK,
    )


def of_those_asked(models: Sequence[ModelReport], profile: Profile) -> tuple[ModelReport, ...]:
    """Without calls that would have compared a model with itself, where nothing was compared."""
    spare = {recheck_name(m.name) for m in models if m.answers_rows}
    return tuple(
        m
        for m in models
        if m.name not in spare or m.role != "repeat" or m.cost_usd or profile.n_asked(m.name)
    )


def definition_of(task: Task) -> dict[str, Any]:
    """How answers are read, JSON-able: what decisions depend on beside the answers."""
    read = {"labels": list(task.labels), "equal": task.equal}
    return read if task.kind == "llm" else {**read, "kind": task.kind, "options": task.options}


def _model_report(position: int, work: Work, outcome: Outcome, exchange: Exchange) -> ModelReport:
    recipe = work.recipes[position]
    tally = asdict(exchange.book.tallies[recipe.name])
    mine = outcome.answered_by == position
    if recipe.role == "reference":
        mine &= ~without_answer(outcome)
    return ModelReport(
        name=recipe.name,
        role=recipe.role,
        identity=exchange.identities[recipe.name],
        price=str(exchange.price_of(recipe.name)),
        learns=recipe.name in work.learning,
        expected_cost=work.expected_costs[position],
        mean_cost=outcome.profile.mean_cost(recipe.name),
        rows=int(work.weights[mine].sum()) if recipe.answers_rows else 0,
        recipe=recipe.facts() if recipe.is_derived else {},
        **{**tally, "served_by": tuple(sorted(tally["served_by"]))},
    )


def columns(work: Work, outcome: Outcome, exchange: Exchange) -> Answered:
    """Answers as columns, in the order in which the prompts were given."""
    by = outcome.answered_by
    n = by.size
    text, cached = np.full(n, -1, dtype=np.int32), np.zeros(n, dtype=np.bool_)
    confidence = np.full(n, np.nan)
    names = [model.name for model in work.models]
    for position, name in enumerate(names):
        mine = by == position
        text[mine] = exchange.book.text_of[name][mine]
        cached[mine] = exchange.book.was_cached[name][mine]
        confidence[mine] = outcome.profile.confidences(name)[mine]
    lost = without_answer(outcome)
    sources = ["reference", "assigned", "cached", "error"]
    source = np.where(lost, 3, np.where(cached, 2, np.where(by > 0, 1, 0)))
    given = np.empty(n, dtype=np.int64)
    given[work.order] = np.arange(n)

    def column(values: Sequence[str], positions: IntArray) -> pa.Array:
        taken = pa.array(positions[given], pa.int64(), mask=(positions < 0)[given])
        return pa.array(values, pa.string()).take(taken)

    errors = exchange.book.error_texts(np.flatnonzero(lost))
    return Answered(
        answer=column(exchange.book.texts, np.where(lost, -1, text)),
        model=column(names, np.where(lost, -1, by)),
        source=column(sources, source),
        confidence=pa.array(confidence[given], pa.float64(), mask=np.isnan(confidence[given])),
        cost_usd=pa.array((exchange.book.paid_usd / work.weights)[given], pa.float64()),
        error=pa.array([errors.get(i) for i in given.tolist()], pa.string())
        if errors
        else pa.nulls(n, pa.string()),
    )
