"""Incremental benefit per cost: what a method adds to its small model for each unit of money.

    IBC of a method = (P_method - P_small) / (C_method - C_small)

compared with the same figure for the reference alone, the slope of the line between asking the
small model only and asking the reference only; the lift says by how much the method's slope is
steeper. P is accuracy where the recording holds a judge's verdicts, else agreement with the
reference; C is cost relative to the reference on every row.

Source: AutoMix (arXiv 2310.12963), section on the metric.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from smartsql.executor import Outcome
from smartsql.replay.recording import Recording, total
from smartsql.types import FloatArray

SMALLEST = 1e-3
"""Differences in cost or benefit below this make no meaningful ratio."""


@dataclass(frozen=True, slots=True)
class Benefit:
    """One run beside its small model and the reference; performances and costs of a row.

    Attributes:
        small: the model that would have answered alone: the candidate that was asked most often.
        method, small_only, reference_only: (performance, cost) each.
    """

    small: str
    method: tuple[float, float]
    small_only: tuple[float, float]
    reference_only: tuple[float, float]


def benefit(recording: Recording, outcome: Outcome, cost_ratio: float) -> Benefit | None:
    """What a run added to its small model; None if no candidate was asked anything."""
    problem, profile = outcome.profile.problem, outcome.profile
    asked = [profile.n_asked(candidate.name) for candidate in problem.candidates]
    if not any(asked):
        return None
    place = int(np.argmax(asked))  # of equals the first in the recording's order
    small, reference = problem.candidates[place].name, problem.reference.name
    verdicts = [performances(recording, model.name) for model in problem.models]
    given = np.stack(verdicts)[outcome.answered_by, np.arange(outcome.answered_by.size)]
    spend = recording.reference_spend_usd
    return Benefit(
        small,
        (_mean(recording, given), cost_ratio),
        (_mean(recording, verdicts[place + 1]), total(recording.costs[small]) / spend),
        (_mean(recording, performances(recording, reference)), 1.0),
    )


def performances(recording: Recording, model: str) -> FloatArray:
    """How good each of a model's answers is, from 0 to 1; shape (n_rows,)."""
    if recording.correct is not None:
        return recording.correct[model]
    return recording.agrees(model).astype(np.float64)


def _mean(recording: Recording, values: FloatArray) -> float:
    return total(values * recording.weights) / recording.n_rows


@dataclass(frozen=True, slots=True)
class Increments:
    """Means of runs of one strategy under one requirement.

    Attributes:
        small: the small model of most runs.
        ibc: of the method, None where its cost is that of the small model.
        base: of the reference alone, None where it costs as much or is no better.
        runs: that asked a candidate anything.
    """

    small: str
    ibc: float | None
    base: float | None
    runs: int

    @property
    def lift_percent(self) -> float | None:
        """By how many percent the method's slope is steeper than the line's."""
        if self.ibc is None or self.base is None:
            return None
        return 100.0 * (self.ibc / self.base - 1.0)


def increments(benefits: list[Benefit]) -> Increments:
    """Ratios of the mean differences, which a run near its small model's cost cannot upset."""

    def mean(pairs: list[tuple[float, float]], part: int) -> float:
        return total(np.array([pair[part] for pair in pairs])) / len(pairs)

    method = [b.method for b in benefits]
    small = [b.small_only for b in benefits]
    large = [b.reference_only for b in benefits]
    gain, extra = (mean(method, part) - mean(small, part) for part in (0, 1))
    line_gain, line_extra = (mean(large, part) - mean(small, part) for part in (0, 1))
    sound = line_extra > SMALLEST and line_gain > SMALLEST
    (name, _), *_ = Counter(b.small for b in benefits).most_common(1)
    return Increments(
        name,
        gain / extra if abs(extra) > SMALLEST else None,
        line_gain / line_extra if sound else None,
        len(benefits),
    )


@dataclass(slots=True)
class IbcTable:
    """Collects runs and prints their incremental benefits per cost.

    Attributes:
        judged: whether performance is a judge's verdict; else it is agreement.
    """

    judged: bool
    groups: dict[tuple[str, float], list[Benefit]] = field(default_factory=dict)

    def add(self, strategy: str, delta: float, run: Benefit | None) -> None:
        """Count a run, if it asked a candidate anything."""
        group = self.groups.setdefault((strategy, delta), [])
        if run is not None:
            group.append(run)

    def text(self) -> str:
        """A line on what is measured, then a table by strategy and delta; `-` has no value."""
        what = "accuracy by the column correct" if self.judged else "agreement, for want of gold"
        width = max([len("strategy"), *(len(name) for name, _ in self.groups)])
        lines = [
            f"Incremental benefit per cost (benefit: {what}; cost: share of the reference's bill)",
            f"{'strategy':<{width}}  {'delta':>6}  {'IBC':>8}  {'line':>8}  {'lift %':>8}"
            f"  {'runs':>5}  small model",
        ]
        for (name, delta), runs in self.groups.items():
            start = f"{name:<{width}}  {delta:>6g}"
            if not runs:
                lines.append(f"{start}  {'-':>8}  {'-':>8}  {'-':>8}  {0:>5}  -")
                continue
            mean = increments(runs)
            figures = (_figure(x) for x in (mean.ibc, mean.base))
            lift = "-" if mean.lift_percent is None else f"{mean.lift_percent:.1f}"
            shown = "  ".join([start, *figures, f"{lift:>8}"])
            lines.append(f"{shown}  {mean.runs:>5}  {mean.small}")
        return "\n".join(lines)


def _figure(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:>8.3f}"
