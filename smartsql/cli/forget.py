"""`smartsql forget MODEL`: have answers of a model asked anew."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("model")
@click.option("--served-by", metavar="ID", help="Only answers that this model id gave.")
@click.option("--store", metavar="FILE", help="The ledger [default: the configured one].")
def forget(*, model: str, served_by: str | None, store: str | None) -> int:
    """Forget the answers of MODEL, so that statements ask it anew.

    What they cost stays in the ledger, as attempts. Use it where a report says that a model has
    changed.
    """
    from smartsql.config import load
    from smartsql.errors import LedgerError
    from smartsql.ledger import Ledger, served
    from smartsql.templates import recheck_name, repeat_name

    path = load().store if store is None else store
    if not Path(path).expanduser().is_file():
        raise LedgerError(f"the ledger {path!r} does not exist; give it with --store.")
    ledger = Ledger(path)
    try:
        calls = (model, repeat_name(model), recheck_name(model))
        count = served.forget(ledger, calls, served_by)
        known = served.names(ledger)
    finally:
        ledger.close()
    which = f"answers of {model!r}" + (f" by {served_by!r}" if served_by else "")
    if not count:
        raise LedgerError(
            f"{path!r} holds no {which}. Models with answers in it: {', '.join(known) or 'none'}."
        )
    click.echo(f"forgot {count:,} {which}; what they cost stays in the ledger", err=True)
    return 0
