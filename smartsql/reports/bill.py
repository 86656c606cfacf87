"""What the command line says of a statement that has run: the bill, and notes on it.

A call has one line, however many groups or waves its rows were answered in; the reports have the
details of each.
"""

from __future__ import annotations

from collections.abc import Sequence

from smartsql.reports.jointly import JOINTLY
from smartsql.reports.narrative import drift_sentences
from smartsql.reports.report import INCOMPLETE, Report, counted, lost_money

MOST_NOTES = 8
"""Notes that are printed; the reports have all."""


def told(reports: Sequence[Report]) -> list[str]:
    """Lines for the reports of one statement, in the order in which its sets were answered."""
    calls: dict[int, list[Report]] = {}
    for report in reports:
        calls.setdefault(report.place, []).append(report)
    lines = [_bill(mine, named=len(calls) > 1) for mine in calls.values()]
    notes = _notes(reports)
    lines += [f"note: {note}" for note in notes[:MOST_NOTES]]
    if len(notes) > MOST_NOTES:
        lines.append(f"note: {len(notes) - MOST_NOTES:,} more notes are in the report (--report).")
    return lines


def _notes(reports: Sequence[Report]) -> list[str]:
    """Each note once; of those on all promises together only the last, which says it all."""
    found = dict.fromkeys(
        note for report in reports for note in report.notes if not note.startswith(JOINTLY)
    )
    last = [note for note in (reports[-1].notes if reports else ()) if note.startswith(JOINTLY)]
    drift = dict.fromkeys(s for report in reports for s in drift_sentences(report.drift))
    return [*last, *drift, *found]


def _bill(reports: Sequence[Report], *, named: bool) -> str:
    """The line of one call.

    Args:
        named: there are others, so it says which it is.
    """
    first = reports[0]
    name = f"smart: {first.call_of_groups}: " if named else "smart: "
    if len(reports) == 1 and first.per is None:
        return first.bill().replace("smart: ", name, 1)
    rows, spend = sum(r.rows for r in reports), sum(r.spend for r in reports)
    reference = sum(r.reference_spend for r in reports)
    lost = lost_money(sum(report.failed_cost_usd for report in reports))
    head = f"{name}{counted(rows, 'row')} in {_parts(reports)}, {first.money(spend)}{lost}"
    if any(report.strategy == INCOMPLETE for report in reports):
        return f"{head} spent until the budget was used up; {_promise(reports)}"
    saved = f", {1 - spend / reference:z.0%} saved" if reference else ""
    return f"{head} (reference only: {first.money(reference)}{saved}); {_promise(reports)}"


def _parts(reports: Sequence[Report]) -> str:
    """In how many sets the rows were answered, and why."""
    per, sets = reports[0].per, len(reports)
    if per is None:
        return counted(sets, "wave")
    groups = f"{counted(len({report.group for report in reports}), 'group')} of {per}"
    again = sets > len({report.group for report in reports})
    return f"{groups} ({sets:,} sets of rows)" if again else groups


def _promise(reports: Sequence[Report]) -> str:
    """What is promised of each of the sets."""
    if len(reports) == 1:
        return reports[0].promise()
    lost = sum(report.error_rows for report in reports)
    if lost:
        have, count = ("has", "counts") if lost == 1 else ("have", "count")
        return f"{counted(lost, 'row')} {have} no answer and {count} as different"
    if not any(report.assigned_rows for report in reports):
        return "every answer is the reference model's"
    bound = max(report.bound for report in reports)
    gamma = min(report.gamma for report in reports)
    return (
        f"in each of them at most {bound:.2%} of the rows differ from the reference with "
        f"probability {gamma:.3g}"
    )
