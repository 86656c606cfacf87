"""What the promises of one statement say together.

Each call of a statement, and each group of a call with `per`, is a set of rows with a promise of
its own, which fails with probability at most 1 - gamma. Whatever depends on what, any of k
promises fails with probability at most the sum of these (Boole's inequality), so all hold with
probability at least 1 minus that sum. A promise with delta = 0 is kept by asking the reference
about every row, and never fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from smartsql.reports.report import Report

if TYPE_CHECKING:
    from smartsql.sql.protocol import Call

MOST_GROUPS = 100
"""Groups that a report lists; the largest."""

Told = tuple["Call", Report]
"""A call and its report."""


def joined(call: Call, report: Report, earlier: Sequence[Told]) -> Report:
    """The report with what holds together with the earlier ones of its statement.

    Args:
        earlier: of the same statement, oldest first.
    """
    everything = [*earlier, (call, report)]
    notes = [*report.notes]
    if call.per is not None:
        report = replace(report, per=call.per, group=call.group)
        mine = [_line(*told) for told in everything if _same_call(told[0], call)]
        mine.sort(key=lambda line: (-line["rows"], line["group"] is None, line["group"] or ""))
        if len(mine) > MOST_GROUPS:
            notes.append(f"{len(mine) - MOST_GROUPS:,} smaller groups are not listed here.")
        report = replace(report, groups=tuple(mine[:MOST_GROUPS]))
        notes.append(
            f"Each group of {call.per} is a set of its own: its promise holds within it with "
            f"probability {report.gamma:.4g}."
        )
    if earlier:
        sure = probability(everything)
        report = replace(report, promises=len(everything), jointly=sure)
        notes.append(_sentence(everything, sure))
    return replace(report, notes=tuple(notes))


def probability(told: Sequence[Told]) -> float:
    """Probability with which all promises hold, at least."""
    missing = sum(1.0 - report.gamma for _, report in told if report.delta > 0)
    return max(0.0, round(1.0 - missing, 12))


def _sentence(told: Sequence[Told], sure: float) -> str:
    groups = sum(call.per is not None for call, _ in told)
    whose = "calls and groups" if groups not in (0, len(told)) else "groups" if groups else "calls"
    k = len(told)
    if sure > 0:
        return (
            f"This statement has {k} {whose} so far, each with a promise of its own; all {k} hold "
            f"together with probability at least {sure:.4g}."
        )
    return (
        f"This statement has {k} {whose} so far, each with a promise of its own; nothing is known "
        f"of all {k} together. For .95 together ask for gamma := {1 - 0.05 / k:.6g} in each."
    )


def _same_call(one: Call, other: Call) -> bool:
    return replace(one, group=None) == replace(other, group=None)


def _line(call: Call, report: Report) -> dict[str, Any]:
    """A group in short, JSON-able."""
    return {
        "group": call.group,
        "rows": report.rows,
        "bound": report.bound,
        "promise": report.promise(),
        "spend": report.spend,
        "reference_spend": report.reference_spend,
    }
