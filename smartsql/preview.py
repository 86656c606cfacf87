"""The price before the spend: what a call would cost, estimated without asking a model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from smartsql.report import format_cost
from smartsql.types import IntArray

if TYPE_CHECKING:
    import pyarrow as pa

    from smartsql.engine import Engine
    from smartsql.sql.protocol import Call
    from smartsql.work import Work

PILOT_ROWS = 15
"""A usual pilot, for the estimate only."""
MOST_PILOT_ROWS = 0.02
"""Share of the rows that a long pilot takes."""
UNKNOWN_LATENCY_S = 1.0
"""Seconds of a call to a model that was never called."""


@dataclass(frozen=True, slots=True)
class ModelPreview:
    """What is known of one model before a call.

    Attributes:
        paid: prompts of this call that it has answered already.
        prompt_tokens: of all prompts, by their bytes.
        cost_per_call: estimate, in the unit of the preview; None where it is not known.
    """

    name: str
    role: str
    price: str
    paid: int
    prompt_tokens: int
    cost_per_call: float | None


@dataclass(frozen=True, slots=True)
class Preview:
    """What a call would cost; `low`, `expected`, `high` and `reference_spend` are in `unit`.

    `high` is what is spent if no candidate turns out to be fit; `low` if one agrees on all rows.
    They are None where nothing is known yet (a model without a price that never ran).
    """

    call: str
    rows: int
    prompts: int
    delta: float
    gamma: float
    unit: str
    low: float | None
    expected: float | None
    high: float | None
    reference_spend: float | None
    seconds: float | None
    models: tuple[ModelPreview, ...]

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-able."""
        return asdict(self)

    def text(self) -> str:
        """The preview for people."""
        lines = [
            f"{self.call}: {self.rows:,} rows, {self.prompts:,} distinct prompts, "
            f"delta {self.delta:g}, gamma {self.gamma:g}"
        ]
        if self.expected is None or self.low is None or self.high is None:
            lines.append("  cost is unknown until the models have run once (they have no price)")
        else:
            money = [format_cost(v, self.unit) for v in (self.low, self.expected, self.high)]
            reference = format_cost(self.reference_spend or 0.0, self.unit)
            lines.append(
                f"  expected {money[1]}, between {money[0]} and {money[2]} "
                f"(reference only: {reference})"
            )
        if self.seconds is not None:
            lines.append(f"  about {self.seconds:,.0f} s")
        for m in self.models:
            paid = f", {m.paid:,} answers paid for earlier" if m.paid else ""
            lines.append(f"  {m.role} {m.name}: {m.price}, {m.prompt_tokens:,} tokens in{paid}")
        return "\n".join(lines)


def preview(engine: Engine, call: Call, prompts: pa.Array, weights: IntArray) -> Preview:
    """Estimate a call; reads the ledger, asks no model.

    Raises:
        ParameterError, ConfigError: as the call itself would.
    """
    work = engine.prepare(call, prompts, weights)
    models = _models(engine, work)
    low = expected = high = reference_spend = seconds = None
    costs = [m.cost_per_call for m in models]
    if costs[0] is not None:
        reference_spend = costs[0] * len(work.cells.digests)
        low, expected, high = (
            [0.0, 0.0, 0.0] if _is_answered(engine, work) else _bounds(work, models)
        )
        seconds = _seconds(engine, work, expected / costs[0] if costs[0] else 0.0)
    return Preview(
        f"smart_llm({call.text})",
        int(work.weights.sum()),
        len(work.cells.digests),
        work.requirement.delta,
        work.requirement.gamma,
        work.unit,
        low,
        expected,
        high,
        reference_spend,
        seconds,
        tuple(models),
    )


def _is_answered(engine: Engine, work: Work) -> bool:
    """Whether the same statement has been answered: it takes the same decisions again."""
    labels = work.cells.task.labels
    identities = [engine.backends[m.name].identity(labels) for m in work.models]
    key = work.key(identities, engine.policy.name, engine.settings.seed)
    return engine.store.has_report(key)


def _models(engine: Engine, work: Work) -> list[ModelPreview]:
    sizes = sum(len(text.encode("utf-8", "surrogatepass")) for text in _rendered(work))
    seconds = {row[0]: (row[5] / row[1] if row[1] else None) for row in engine.store.totals()}
    found = []
    for position, candidate in enumerate(work.models):
        backend = engine.backends[candidate.name]
        identity = engine.store.identity(candidate.name, backend.identity(work.cells.task.labels))
        paid = engine.store.lookup(identity, work.cells.digests)
        cost = candidate.expected_cost if work.unit == "usd" else seconds.get(candidate.name)
        role = "reference" if position == 0 else "candidate"
        found.append(
            ModelPreview(candidate.name, role, str(backend.price), len(paid), sizes // 4, cost)
        )
    return found


def _rendered(work: Work) -> list[str]:
    return [work.cells.task.render(text) for text in work.cells.texts.to_pylist()]


def _bounds(work: Work, models: list[ModelPreview]) -> list[float]:
    """Low, expected and high cost of the call."""
    from smartsql.policies.planning import PromptCounts, design_table, outlook, posterior

    n = len(work.cells.digests)
    reference = models[0].cost_per_call or 0.0
    unpaid = 1 - models[0].paid / n if n else 0.0
    everything = reference * n * unpaid
    problem = work.problem(0)
    d, n_rows = problem.tolerated, problem.population.n_rows
    cheaper = [m for m in models[1:] if m.cost_per_call is not None and m.cost_per_call < reference]
    if d < 1 or n_rows <= 12 or not cheaper or not everything:
        return [everything] * 3
    table = design_table(n_rows, d, work.requirement.alpha)
    look = outlook(table, PromptCounts(problem.population), min(PILOT_ROWS, n_rows // 4))
    prior = posterior(table.rates, 0, 0)
    lows, means = [], []
    for m in cheaper:
        # a prompt the reference has answered costs nothing, one a candidate has answered neither
        share = (m.cost_per_call or 0.0) / reference * (1 - m.paid / n)
        best = look.costs(share, share).min(axis=0) * reference * unpaid
        lows.append(float(best[0]))
        means.append(float(prior @ best))
    pilot = (reference + sum(m.cost_per_call or 0.0 for m in cheaper)) * look.pilot * unpaid
    long_pilot = sum(m.cost_per_call or 0.0 for m in cheaper) * MOST_PILOT_ROWS * n
    high = everything + long_pilot
    return [min(low + pilot, high) for low in (min(lows), min(means))] + [high]


def _seconds(engine: Engine, work: Work, reference_calls: float) -> float | None:
    """Wall time if the reference is the slowest, at its mean latency so far."""
    name = work.models[0].name
    kind = engine.settings.reference.kind
    calls, seconds = next(
        ((row[1], row[5]) for row in engine.store.totals() if row[0] == name), (0, 0.0)
    )
    if not calls and kind != "openai":
        return None
    latency = seconds / calls if calls else UNKNOWN_LATENCY_S
    at_once = engine.settings.max_in_flight if kind == "openai" else 1
    return float(np.ceil(reference_calls) * latency / min(at_once, max(reference_calls, 1.0)))
