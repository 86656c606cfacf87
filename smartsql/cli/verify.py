"""`smartsql verify REPORT.json`: re-check reports against the ledger, offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smartsql.cli.output import say
from smartsql.errors import VerificationError

if TYPE_CHECKING:
    from smartsql.ledger import Ledger
    from smartsql.reports.verify import Check


@click.command()
@click.argument("report", metavar="REPORT.json", type=click.Path(exists=True, dir_okay=False))
@click.option("--store", metavar="FILE", help="The ledger [default: the one the report names].")
def verify(*, report: str, store: str | None) -> int:
    """Re-check a report: same rows, same order, same audit, same bound.

    The decisions are taken again with the ledger as the only source of answers, and the risk of
    the design is computed anew. No model is asked.
    """
    from smartsql.ledger import Ledger

    failed = 0
    for values in _reports(Path(report)):
        path = store or values.get("store")
        if not isinstance(path, str):
            raise VerificationError("the report names no store; give it with --store.")
        if path == ":memory:":
            raise VerificationError(
                'the report was made with store = ":memory:", whose answers ended with the '
                "program. Only reports of a store in a file can be checked again."
            )
        if not Path(path).expanduser().is_file():
            raise VerificationError(f"the ledger {path!r} does not exist; give it with --store.")
        ledger = Ledger(path)
        try:
            say(f"{values.get('call')}, run {values.get('run')}:", err=False)
            for check in _checks(values, ledger):
                failed += not check.holds
                outcome = "ok    " if check.holds else "FAILED"
                say(f"  {outcome} {check.what}: {check.detail}", err=False)
        finally:
            ledger.close()
    click.echo("the report holds." if not failed else f"{failed} checks failed.")
    return 1 if failed else 0


def _checks(values: dict[str, Any], ledger: Ledger) -> list[Check]:
    """The checks of one report; what is no report at all is refused in words."""
    from smartsql.reports.verify import verify as check_report

    try:
        return check_report(values, ledger)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        # a field of another type or form than reports have, wherever it was met
        raise VerificationError(
            f"the report is malformed ({type(error).__name__}: {error}); write it again with "
            f"--report, or with report.to_json()."
        ) from error


def _reports(path: Path) -> list[dict[str, Any]]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise VerificationError(f"{str(path)!r} is not JSON: {error}") from error
    found = values if isinstance(values, list) else [values]
    if not found or not all(isinstance(value, dict) for value in found):
        raise VerificationError(f"{str(path)!r} holds no report.")
    return found
