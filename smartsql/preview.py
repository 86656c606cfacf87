"""The price before the spend: what a call would cost, estimated without asking a model."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from smartsql.calls.materials import example
from smartsql.calls.recipes import Recipe
from smartsql.calls.work import SAMPLE, Work
from smartsql.gateway import Backend
from smartsql.ledger import Ledger
from smartsql.reports.report import format_cost

Total = tuple[str, int, int, int, float, float]
"""A row of `Ledger.totals`."""


PILOT_ROWS = 15
"""A usual pilot, for the estimate only."""
MOST_PILOT_ROWS = 0.02
"""Share of the rows that a long pilot takes."""
NEARLY_FREE = 0.1
"""Share of the reference's price below which a call may be made on all rows."""
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

    def __str__(self) -> str:
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


def preview(
    call: str,
    work: Work,
    backends: Mapping[str, Backend],
    store: Ledger,
    *,
    key: bytes,
    at_once: int,
    again: int = 0,
) -> Preview:
    """Estimate a call; reads the ledger, asks no model.

    Args:
        call: the call's text.
        key: of the statement; one that was answered takes the same decisions again, for nothing.
        at_once: calls of the reference in flight.
        again: prompts about which the reference is asked twice, to see if it repeats itself.
    """
    totals = {row[0]: row for row in store.totals()}
    models = [
        _model(work, position, backends[recipe.backend], store, totals)
        for position, recipe in enumerate(work.recipes)
    ]
    n = len(work.cells.digests)
    again = min(again, n)
    models = [
        replace(m, prompt_tokens=m.prompt_tokens * again // max(n, 1)) if m.role == "repeat" else m
        for m in models
    ]
    low = expected = high = reference_spend = seconds = None
    cost = models[0].cost_per_call
    if cost is not None:
        reference_spend = cost * n
        bounds = [0.0] * 3 if store.has_report(key) else _bounds(work, models)
        paid = sum(m.paid for m in models if m.role == "repeat")
        twice = cost * max(again - paid, 0)
        low, expected, high = (bound + twice for bound in bounds)
        calls = expected / cost if cost else 0.0
        seconds = _seconds(totals.get(models[0].name), calls, at_once)
    return Preview(
        call,
        int(work.weights.sum()),
        n,
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


def _model(
    work: Work, position: int, backend: Backend, store: Ledger, totals: Mapping[str, Total]
) -> ModelPreview:
    recipe = work.recipes[position]
    paid: Sized = ()
    if not recipe.is_derived:  # keys of others depend on answers that may not be known yet
        identity = store.identity(recipe.name, work.identities[position])
        paid = store.lookup(identity, work.cells.digests)
    _, calls, *_, seconds = totals.get(recipe.name, (recipe.name, 0, 0, 0, 0.0, 0.0))
    measured = recipe.samples * seconds / calls if calls else None
    return ModelPreview(
        recipe.name,
        recipe.role,
        str(backend.price),
        len(paid),
        _prompt_bytes(work, recipe) // 4,
        work.expected_costs[position] if work.unit == "usd" else measured,
    )


def _prompt_bytes(work: Work, recipe: Recipe) -> int:
    """Bytes of the prompts of all cells; those built of earlier answers by a few of them."""
    task, texts = work.cells.task, work.cells.texts
    if not recipe.is_derived:
        prompts = task.rendered(texts.to_pylist())
        return sum(len(text.encode("utf-8", "surrogatepass")) for text in prompts)
    material = example(recipe, task)
    some = [recipe.prompt(task, text, material) for text in texts.slice(0, SAMPLE).to_pylist()]
    n_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in some)
    return recipe.samples * n_bytes * len(texts) // max(len(some), 1)


def _bounds(work: Work, models: list[ModelPreview]) -> list[float]:
    """Low, expected and high cost of the call."""
    from smartsql.policies.exact.planning import PromptCounts, design_table, outlook, posterior

    n = len(work.cells.digests)
    reference = models[0].cost_per_call or 0.0
    unpaid = 1 - models[0].paid / n if n else 0.0
    everything = reference * n * unpaid
    problem = work.problem(0)
    d, n_rows = problem.tolerated, problem.population.n_rows
    cheaper = [
        m
        for m in models
        if m.role == "candidate" and m.cost_per_call is not None and m.cost_per_call < reference
    ]
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
    evidence = [m for m in models if m.role in ("verifier", "step")]
    calls = [m.cost_per_call or 0.0 for m in (*cheaper, *evidence)]
    pilot = (reference + sum(calls)) * look.pilot * unpaid
    # calls that cost next to nothing may be made on all rows, and the reference asked all the same
    shares = [1.0 if cost < NEARLY_FREE * reference else MOST_PILOT_ROWS for cost in calls]
    high = everything + n * sum(share * cost for share, cost in zip(shares, calls, strict=True))
    return [min(low + pilot, high) for low in (min(lows), min(means))] + [high]


def _seconds(reference: Total | None, calls: float, at_once: int) -> float | None:
    """Wall time if the reference is the slowest, at its mean latency so far."""
    if reference is None and at_once == 1:
        return None
    latency = reference[5] / reference[1] if reference else UNKNOWN_LATENCY_S
    return float(np.ceil(calls) * latency / min(at_once, max(calls, 1.0)))
