"""What people read with SQL: reports, models and the ledger as Arrow tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import pyarrow as pa

from smartsql.gateway import Backend
from smartsql.ledger import Ledger
from smartsql.reports.report import Report
from smartsql.templates import recheck_name, repeat_name, step_name, verifier_name

if TYPE_CHECKING:
    from smartsql.config import Model, Settings

_TYPES = {
    "str": pa.string(),
    "str | None": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "float | None": pa.float64(),
}

REPORTS = pa.schema([(f.name, _TYPES.get(str(f.type), pa.string())) for f in fields(Report)])
"""Nested fields (models, certificate, notes, task_definition, drift, ...) are JSON."""

MODELS = pa.schema(
    [
        ("name", pa.string()),
        ("role", pa.string()),
        ("kind", pa.string()),
        ("input_usd_per_mtok", pa.float64()),
        ("output_usd_per_mtok", pa.float64()),
        ("price_source", pa.string()),
        ("calls", pa.int64()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("spend_usd", pa.float64()),
        ("seconds", pa.float64()),
    ]
)

ATTEMPTS = pa.schema(
    [
        ("time", pa.timestamp("us", "UTC")),
        ("run", pa.int64()),
        ("model", pa.string()),
        ("prompt_digest", pa.string()),
        ("status", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("cost_usd", pa.float64()),
        ("seconds", pa.float64()),
        ("error", pa.string()),
    ]
)


def reports(history: Sequence[Report]) -> pa.Table:
    """One row a call: the report's fields, oldest first."""
    return pa.Table.from_pylist([report.row() for report in history], schema=REPORTS)


def models(settings: Settings, backends: Mapping[str, Backend], ledger: Ledger) -> pa.Table:
    """The configured models: role, prices, and what they did over the life of the ledger."""
    totals = {row[0]: row[1:] for row in ledger.totals()}
    rows = []
    compared = [(recheck_name(model.name), "repeat", model) for model in settings.models]
    for name, role, model in (*_everyone(settings), *(c for c in compared if c[0] in totals)):
        price = backends[model.name].price
        calls, tokens_in, tokens_out, usd, seconds = totals.get(name, (0, 0, 0, 0.0, 0.0))
        rows.append(
            {
                "name": name,
                "role": role,
                "kind": model.kind,
                "input_usd_per_mtok": price.input_usd_per_mtok,
                "output_usd_per_mtok": price.output_usd_per_mtok,
                "price_source": price.source,
                "calls": calls,
                "prompt_tokens": int(tokens_in),
                "completion_tokens": int(tokens_out),
                "spend_usd": usd,
                "seconds": seconds,
            }
        )
    return pa.Table.from_pylist(rows, schema=MODELS)


def _everyone(settings: Settings) -> Iterator[tuple[str, str, Model]]:
    """Name, role and model of all that may be asked."""
    by_name = {model.name: model for model in settings.models}
    for model in settings.models:
        yield model.name, "reference" if model.reference else "candidate", model
    for model in settings.models:
        if model.verification:
            yield verifier_name(model.name), "verifier", model
    for task, section in settings.tasks.items():
        for step in section.steps:
            yield step_name(task, step.name), "step", by_name[step.model]
    if settings.self_agreement:
        yield repeat_name(settings.reference.name), "repeat", settings.reference


def attempts(ledger: Ledger) -> pa.Table:
    """Every attempt in the ledger, oldest first."""
    batches = []
    for group in ledger.attempts():
        columns = [list(column) for column in zip(*group, strict=True)]
        columns[0] = [round(at * 1e6) for at in columns[0]]
        arrays = [pa.array(c, t) for c, t in zip(columns, ATTEMPTS.types, strict=True)]
        batches.append(pa.record_batch(arrays, schema=ATTEMPTS))
    return pa.Table.from_batches(batches, schema=ATTEMPTS)
