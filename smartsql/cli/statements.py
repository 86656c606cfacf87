"""Statements of the command line and the shell: run to their ends, with answers and bill."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

import click

from smartsql.cli.confirm import check_price
from smartsql.cli.interrupt import interruptible
from smartsql.cli.output import write_result
from smartsql.errors import QueryError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from smartsql.api import Connection


class Result(NamedTuple):
    """The rows of a statement, and its columns as it names them."""

    table: pa.Table
    names: list[str]


def statements(connection: Connection, text: str) -> list[duckdb.Statement]:
    """The statements of a text.

    Raises:
        QueryError: it cannot be read.
    """
    import duckdb

    try:
        return list(connection.extract_statements(text))
    except duckdb.Error as error:
        raise QueryError(str(error)) from error


def run_statement(
    connection: Connection, statement: duckdb.Statement, style: str, *, yes: bool
) -> None:
    """Run one statement: its rows to stdout, the bill and notes of its calls to stderr.

    Args:
        style: one of `output.FORMATS`.
        yes: whatever it costs; else the user is asked as `confirm_above_usd` says.

    Raises:
        QueryError: DuckDB refuses it.
        click.ClickException: it costs more than it may without being confirmed.
        KeyboardInterrupt: it was interrupted and has ended.
    """
    if not yes:
        check_price(connection, statement)
    done = len(connection.reports)
    result = _executed(connection, statement)
    if result is not None:
        write_result(result.table, result.names, style)
    for report in connection.reports[done:]:
        click.echo(report.bill(), err=True)
        for note in report.notes:
            click.echo(f"note: {note}", err=True)


def _executed(connection: Connection, statement: duckdb.Statement) -> Result | None:
    """Run a statement to its end; its result, None where it has no rows."""
    import duckdb

    def work() -> Result | None:
        connection.execute(statement.query)
        columns = [column[0] for column in connection.description or []]
        changes_rows = duckdb.ExpectedResultType.CHANGED_ROWS in statement.expected_result_type
        if duckdb.ExpectedResultType.QUERY_RESULT not in statement.expected_result_type or (
            changes_rows and columns == ["Count"]
        ):
            return None
        with warnings.catch_warnings():
            # DuckDB advises relations, which run again whenever they are read
            warnings.simplefilter("ignore", UserWarning)
            return Result(connection.to_arrow_table(), columns)

    try:
        return interruptible(work, connection.interrupt)
    except duckdb.Error as error:
        raise QueryError(str(error)) from error
