"""`smartsql rescue LEDGER NEW`: copy what can be read of a damaged ledger into a new one."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("ledger", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
def rescue(*, ledger: Path, new: Path) -> int:
    """Copy what can be read of a damaged LEDGER into the file NEW, which is made.

    The damaged file is only read. Put the new one in its place, or name it as store.
    """
    from smartsql.ledger.rescue import rescue as rescued

    counts = rescued(ledger, new)
    told = ", ".join(f"{count:,} {table}" for table, count in counts.items() if count)
    click.echo(f"found {told}", err=True)
    click.echo(str(new))
    return 0
