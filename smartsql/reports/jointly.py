"""What the promises of one statement say together.

Each call of a statement, each group of a call with `per`, and each wave of a call that is answered
in several is a set of rows with a promise of its own, which fails with probability at most
1 - gamma. Whatever depends on what, any of k promises fails with probability at most the sum of
these (Boole's inequality), so all hold with probability at least 1 minus that sum. A promise with
delta = 0 is kept by asking the reference about every row, and never fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from smartsql.reports.report import Report, counted

if TYPE_CHECKING:
    from smartsql.sql.protocol import Call

MOST_GROUPS = 100
"""Groups that a report lists; the largest."""

JOINTLY = "This statement has"
"""How the sentence on all promises of a statement begins."""

Told = tuple["Call", Report]
"""A call and its report."""


def joined(call: Call, report: Report, earlier: Sequence[Told]) -> Report:
    """The report with what holds together with the earlier ones of its statement.

    Args:
        earlier: of the same statement, oldest first.
    """
    everything = [*earlier, (call, report)]
    notes = [*report.notes]
    sites = list(dict.fromkeys(_site(told) for told in everything))
    report = replace(report, place=sites.index(_site((call, report))) + 1)
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
    """What holds of all promises of a statement, in one sentence."""
    k = len(told)
    calls = len({_site(one) for one in told})
    groups = len({(_site(one), one[0].group) for one in told if one[0].per is not None})
    if calls == 1 and not groups and sure > 0:
        return _of_waves([report for _, report in told], sure)
    if groups + sum(call.per is None for call, _ in told) < k or (not groups and calls < k):
        whose = f"{counted(calls, 'call')} in {k} sets of rows (groups, waves)"
    elif calls == 1:
        whose = f"{k} groups"
    else:
        whose = f"{k} calls and groups" if groups else f"{k} calls"
    begin = f"{JOINTLY} {whose} so far, each with a promise of its own; "
    if sure > 0:
        return f"{begin}all {k} hold together with probability at least {sure:.4g}."
    return (
        f"{begin}nothing is known of all {k} together. For .95 together ask for "
        f"gamma := {1 - 0.05 / k:.6g} in each."
    )


def _of_waves(reports: Sequence[Report], sure: float) -> str:
    """The same where one call was answered in several sets, one after the other."""
    rows = sum(report.rows for report in reports)
    return (
        f"{JOINTLY} one call, answered in {len(reports)} waves so far, each with a promise of its "
        f"own; of the {rows:,} rows asked in all of them at most "
        f"{100 * max(report.bound for report in reports):.4g} % differ with probability at least "
        f"{sure:.4g}. That is about the rows asked, not about those that a condition let through."
    )


def _site(told: Told) -> object:
    """What tells the calls of a statement apart, as far as it is known."""
    call = told[0]
    return call.site or replace(call, group=None)


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
