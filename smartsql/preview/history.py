"""What earlier runs of the same task cost: sharpens what is expected, never the bounds."""

from __future__ import annotations

import json
from typing import Any

from smartsql.calls.work import Work
from smartsql.ledger import Ledger
from smartsql.reports.report import INCOMPLETE

LAST_RUNS = 20
"""Reports that are looked at."""
ALIKE = 3.0
"""Statements whose sizes differ by more than this factor say little of one another."""


def usual_share(store: Ledger, work: Work) -> tuple[float, int]:
    """Mean spend of earlier runs relative to the reference alone, and how many there were.

    Runs of the same task, models and promise that paid for all their answers themselves, on about
    as many prompts: on few rows nothing can be saved.
    """
    shares = [
        report["spend"] / report["reference_spend"]
        for report in map(json.loads, store.last_reports(LAST_RUNS))
        if _is_alike(report, work)
    ]
    return (sum(shares) / len(shares), len(shares)) if shares else (0.0, 0)


def _is_alike(report: dict[str, Any], work: Work) -> bool:
    models = [m for m in report["models"] if m["role"] != "repeat"]
    identities = [
        identity
        for identity, recipe in zip(work.identities, work.recipes, strict=True)
        if recipe.role != "repeat"
    ]
    return (
        report["strategy"] != INCOMPLETE
        and report["reference_spend"] > 0
        and 1 / ALIKE <= report["prompts"] / len(work.cells.digests) <= ALIKE
        and report["unit"] == work.unit
        and report["task"] == work.cells.task.name
        and (report["delta"], report["gamma"]) == (work.requirement.delta, work.requirement.gamma)
        and [m["identity"] for m in models if not m["learns"]]
        == [i for i, m in zip(identities, models, strict=False) if not m["learns"]]
        and not any(m["cached"] for m in report["models"])
    )
