"""Statements of the command line and the shell: run to their ends, with answers and bill."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from smartsql.cli.confirm import check_price
from smartsql.cli.output import say, write_result
from smartsql.errors import QueryError
from smartsql.reports.bill import told
from smartsql.sql.interrupts import interruptible

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from smartsql.api import Connection


class Result(NamedTuple):
    """The rows of a statement, and its columns as it names them."""

    table: pa.Table
    names: list[str]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a text.

    Attributes:
        query: its text.
        parsed: what DuckDB makes of it; None for statements about smart tasks, which are ours.
    """

    query: str
    parsed: duckdb.Statement | None

    @property
    def kind(self) -> str:
        """DuckDB's name for what it is, or "SMART_TASK"."""
        return "SMART_TASK" if self.parsed is None else self.parsed.type.name

    def has_rows(self, columns: list[str]) -> bool:
        """Whether there is something to print; a count of changed rows is not.

        Args:
            columns: names in its result.
        """
        import duckdb

        if self.parsed is None:
            return False
        expected = self.parsed.expected_result_type
        counts = duckdb.ExpectedResultType.CHANGED_ROWS in expected and columns == ["Count"]
        return duckdb.ExpectedResultType.QUERY_RESULT in expected and not counts


def statements(connection: Connection, text: str) -> list[Statement]:
    """The statements of a text.

    Raises:
        QueryError: it cannot be read.
    """
    import duckdb

    from smartsql.sql.normalise.text.parameters import separated
    from smartsql.sql.smart_tasks import mentions_smart_task, task_statement

    found: list[Statement] = []
    try:
        for piece in separated(text) if mentions_smart_task(text) else [text]:
            if task_statement(piece) is not None:
                found.append(Statement(piece, None))
                continue
            found += [Statement(s.query, s) for s in connection.extract_statements(piece)]
    except duckdb.Error as error:
        raise QueryError(str(error)) from error
    return found


def run_statement(connection: Connection, statement: Statement, style: str, *, yes: bool) -> None:
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
    for line in told(connection.reports[done:]):
        say(line)


def _executed(connection: Connection, statement: Statement) -> Result | None:
    """Run a statement to its end; its result, None where it has no rows."""
    import duckdb

    def work() -> Result | None:
        connection.execute(statement.query)
        columns = [column[0] for column in connection.description or []]
        if not statement.has_rows(columns):
            return None
        with warnings.catch_warnings():
            # DuckDB advises relations, which run again whenever they are read
            warnings.simplefilter("ignore", UserWarning)
            return Result(connection.to_arrow_table(), columns)

    try:
        return interruptible(work, connection.interrupt)
    except duckdb.Error as error:
        raise QueryError(str(error)) from error
