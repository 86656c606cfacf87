"""What a report says of calls that ended without anyone knowing how."""

from __future__ import annotations

from smartsql.ledger import Lost
from smartsql.reports.report import counted, format_cost


def told_of(lost: Lost) -> list[str]:
    """A note on calls that were lost; none where there are none."""
    if not lost.calls:
        return []
    whose = "a statement" if lost.calls == 1 else "statements"
    return [
        f"{counted(lost.calls, 'call')} of {whose} that ended before the answer came may have "
        f"been billed, at most {format_cost(lost.usd, 'usd')} (status 'lost' in smart_ledger()); "
        f"no figure here contains that."
    ]
