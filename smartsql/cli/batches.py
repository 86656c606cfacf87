"""`smartsql batches`: what is under way in batches, and taking what is done."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import click

from smartsql.cli.output import say
from smartsql.errors import ConfigError

if TYPE_CHECKING:
    from smartsql.config import Settings
    from smartsql.gateway.openai_batch import BatchEndpoint
    from smartsql.ledger import Ledger
    from smartsql.ledger.batches import Batches, Placed

HEADS = ("number", "id", "model", "calls", "ready", "state", "age", "ends within")
STATES = {"new": "being handed in", "sent": "being handed in", "over": "collected"}
"""States of ours in words; that of a batch under way is the endpoint's own word."""


@click.command()
@click.option("--config", metavar="FILE", help="A smartsql.toml.")
@click.option("--store", metavar="FILE", help="The ledger [default: the one of the settings].")
@click.option("--collect", is_flag=True, help="Take the answers of batches that are done.")
@click.option("--all", "everything", is_flag=True, help="List those that are over, too.")
@click.option(
    "--forget", metavar="NUMBER", type=int, help="Give up a batch, and what it was billed."
)
def batches(
    *, config: str | None, store: str | None, collect: bool, everything: bool, forget: int | None
) -> int:
    """List the batches that the ledger knows to be under way.

    The endpoints are asked only with --collect.
    """
    from smartsql.config import load
    from smartsql.ledger import Ledger
    from smartsql.ledger.batches import Batches

    settings = load(config, store=store)
    failed = 0
    found: list[Placed] = []
    if Path(settings.store).expanduser().is_file():
        ledger = Ledger(settings.store)
        try:
            table = Batches(ledger)
            if forget is not None:
                _forget(table, forget)
            if collect:
                failed = _collect(settings, table, ledger)
            found = table.all() if everything else table.under_way()
        finally:
            ledger.close()
    if found:
        _show(found)
    else:
        click.echo("no batch is under way.", err=True)
    return 1 if failed else 0


def _forget(table: Batches, number: int) -> None:
    found = [batch for batch in table.under_way() if batch.number == number]
    if not found:
        raise click.UsageError(f"no batch under way has the number {number}")
    table.drop(found[0])
    say(f"batch {number} is given up; what it was to answer is asked anew.")


def _collect(settings: Settings, table: Batches, ledger: Ledger) -> int:
    """Take what is done; how many batches nothing could be learned of."""
    from smartsql.asking.batch_ends import collected
    from smartsql.gateway.openai_batch import RefusedError

    failed = 0
    endpoints: dict[tuple[str, str], BatchEndpoint | None] = {}
    ledger.catch_up()
    try:
        for batch in table.under_way():
            at = (batch.url, batch.model)  # models at one address may have keys of their own
            try:
                if at not in endpoints:
                    endpoints[at] = _endpoint(settings, batch)
            except ConfigError as error:
                say(f"batch {batch.number}: {error}")
                failed += 1
                continue
            endpoint = endpoints[at]
            if endpoint is None:
                say(f"batch {batch.number}: no model is configured at {batch.url}")
                failed += 1
                continue
            try:
                attempts = collected(batch, endpoint, table, Event())
            except RefusedError as error:
                say(f"batch {batch.number}: {error.failure.error}")
                failed += 1
                continue
            if attempts is not None:
                answered = sum(a.final for a in attempts)
                usd = sum(a.cost_usd for a in attempts)
                say(
                    f"batch {batch.number}: {answered:,} of {len(attempts):,} answers taken, "
                    f"${usd:.6g}"
                )
    finally:
        for endpoint in endpoints.values():
            if endpoint is not None:
                endpoint.close()
    return failed


def _endpoint(settings: Settings, batch: Placed) -> BatchEndpoint | None:
    """The endpoint of a batch, with the key of the model that it was made for, or of another."""
    from smartsql.asking.backends import batch_endpoint
    from smartsql.config.keys import Keyring

    there = [
        model
        for model in settings.models
        if model.kind == "openai" and model.base_url.rstrip("/") == batch.url.rstrip("/")
    ]
    named = [model for model in there if model.name == batch.model] or there
    if not named:
        return None
    keys = Keyring(named[:1])
    if named[0].api_key_secret:
        import duckdb

        with duckdb.connect() as connection:
            keys.read(connection)
        keys.check()
    return batch_endpoint(named[0], keys)


def _show(found: list[Placed]) -> None:
    """One line a batch, in columns."""
    now = time.time()
    rows = [HEADS, *(_row(batch, now) for batch in found)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(HEADS))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip(), err=False)


def _row(batch: Placed, now: float) -> tuple[str, ...]:
    state = batch.said if batch.state == "open" and batch.said else batch.state
    within = _lasting(batch.until - now) if batch.until and batch.is_under_way else "-"
    return (
        str(batch.number),
        batch.id or "-",
        batch.model,
        f"{batch.calls:,}",
        f"{batch.done:,}",
        STATES.get(state, state),
        _lasting(now - batch.at),
        within,
    )


def _lasting(seconds: float) -> str:
    """A time in hours and minutes."""
    minutes = max(0, round(seconds / 60))
    return f"{minutes // 60} h {minutes % 60:02} min"
