"""Asking before a statement that is expected to cost more than `confirm_above_usd`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from smartsql.cli.output import say
from smartsql.reports.report import format_cost

if TYPE_CHECKING:
    from smartsql.api import Connection
    from smartsql.cli.statements import Statement


class NotConfirmed(click.ClickException):
    """A statement was not run because of its price."""

    exit_code = 1

    def show(self, file: object = None) -> None:
        """Say so on stderr."""
        click.echo(self.message, err=True)


def check_price(connection: Connection, statement: Statement) -> None:
    """Ask, where a statement is expected to cost more than may be spent without asking.

    Raises:
        NotConfirmed: the answer was no.
        click.UsageError: there is nobody to ask.
        QueryError: DuckDB refuses the statement.
    """
    import duckdb

    from smartsql.errors import QueryError

    limit_usd = connection.engine.settings.confirm_above_usd
    if limit_usd is None or statement.parsed is None or _only_explains(statement):
        return
    try:
        if not connection.has_calls(statement.query):
            return
        previews = connection.preview(statement.query)
    except duckdb.Error as error:
        raise QueryError(str(error)) from error
    expected = _expected_usd(previews)
    if expected is not None and expected <= limit_usd:
        return
    for preview in previews:
        say(str(preview))
    cost = "an amount that is not known" if expected is None else format_cost(expected, "usd")
    text = f"expected to cost {cost}, above confirm_above_usd = {limit_usd:g}"
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"the statement is {text}, and there is no terminal to ask. Add --yes to run it, or "
            f"raise confirm_above_usd (SMARTSQL_CONFIRM_ABOVE_USD)."
        )
    if not click.confirm(f"This is {text}. Run it?", err=True):
        raise NotConfirmed("not run; nothing was asked.")


def _only_explains(statement: Statement) -> bool:
    """Whether surely no call is made: an EXPLAIN that does not run its query."""
    text = statement.query.upper()
    return text.split()[:1] == ["EXPLAIN"] and "ANALYZ" not in text and "ANALYS" not in text


def _expected_usd(previews: list[object]) -> float | None:
    """What calls are expected to cost together; None where one of them cannot be reckoned."""
    from smartsql.preview import Preview

    total = 0.0
    for preview in previews:
        if not isinstance(preview, Preview):
            return None
        if preview.unit == "usd":
            if preview.expected is None:
                return None
            total += preview.expected
    return total
