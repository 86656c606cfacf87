"""`smartsql [DATABASE] -c SQL`: run statements, print their answers and the bill."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from smartsql.cli.output import FORMATS, keep_types, write_result
from smartsql.errors import QueryError
from smartsql.reports.report import Report

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from smartsql.sql.session import Connection

EPILOG = """Other commands: smartsql demo, smartsql replay, smartsql verify (each has --help).

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 budget reached."""


@click.command(epilog=EPILOG)
@click.argument("database", required=False, default=":memory:")
@click.option("-c", "commands", multiple=True, metavar="SQL", help="Run SQL; may be repeated.")
@click.option(
    "-f",
    "file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="Run the SQL of a file, after all -c; - is standard input.",
)
@click.option("--config", metavar="FILE", help="A smartsql.toml.")
@click.option("--budget", metavar="USD", type=click.FloatRange(min=0), help="Cap per statement.")
@click.option(
    "--self-agreement",
    metavar="N",
    type=click.IntRange(min=0),
    help="Ask the reference again about N rows; the report says how often it repeats itself.",
)
@click.option(
    "--dry-run", is_flag=True, help="Show what it would cost; ask no model, keep nothing."
)
@click.option(
    "--report",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True),
    help="Write the reports of the calls to FILE.html or FILE.json.",
)
@click.option("-readonly", "read_only", is_flag=True, help="Open the database for reading only.")
@click.option("-csv", "style", flag_value="csv", help="Print CSV.")
@click.option("-json", "style", flag_value="json", help="Print a JSON array.")
@click.option("-jsonlines", "style", flag_value="jsonlines", help="Print a JSON object a line.")
@click.option("-markdown", "style", flag_value="markdown", help="Print a Markdown table.")
@click.option("-box", "style", flag_value="box", default=True, help="Print a box [default].")
@click.version_option(package_name="smartsql", message="%(version)s")
def query(
    *,
    database: str,
    commands: tuple[str, ...],
    file: str | None,
    config: str | None,
    budget: float | None,
    self_agreement: int | None,
    dry_run: bool,
    report: str | None,
    read_only: bool,
    style: str,
) -> int:
    """Run SQL with smart calls on a DuckDB database (in memory by default)."""
    import duckdb

    import smartsql
    from smartsql.cli.progress import progress_line

    assert style in FORMATS
    if report:
        _check_report(report)
    texts = _texts(commands, file)
    written = True
    with progress_line() as progress:
        try:
            connection = smartsql.connect(
                database,
                config,
                read_only=read_only,
                progress=progress,
                budget_usd=budget,
                self_agreement=self_agreement,
            )
        except duckdb.Error as error:
            raise QueryError(f"cannot open the database {database!r}: {one_line(error)}") from error
        with connection:
            try:
                if dry_run:
                    _preview(connection, texts)
                else:
                    _run(connection, texts, style)
            finally:
                if report and connection.reports:
                    written = _keep_reports(report, connection.reports)
    return 0 if written else 1


def one_line(error: Exception) -> str:
    """What DuckDB says first; the rest is its account of the statement."""
    return str(error).strip().partition("\n")[0]


def _check_report(path: str) -> None:
    """Wrong usage, before anything is spent, where no report could be written in the end."""
    if not path.endswith((".html", ".json")):
        raise click.UsageError(f"--report takes FILE.html or FILE.json, not {path!r}")
    folder = Path(path).parent
    if not folder.is_dir():
        raise click.UsageError(f"--report is {path!r}, but there is no folder {str(folder)!r}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise click.UsageError(f"--report is {path!r}, but {str(folder)!r} cannot be written to")


def _texts(commands: tuple[str, ...], file: str | None) -> list[str]:
    """The SQL to run: all -c, then the file, or standard input."""
    texts = list(commands)
    try:
        if file == "-" or (file is None and not texts and not sys.stdin.isatty()):
            texts.append(sys.stdin.read())
        elif file is not None:
            texts.append(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"cannot read {file or 'standard input'!r}: {error}") from error
    if not any(text.strip() for text in texts):
        raise click.UsageError("give SQL with -c or -f, or on standard input")
    return texts


def _statements(connection: Connection, text: str) -> list[duckdb.Statement]:
    import duckdb

    try:
        return list(connection.extract_statements(text))
    except duckdb.Error as error:
        raise QueryError(str(error)) from error


def _run(connection: Connection, texts: list[str], style: str) -> None:
    keep_types(connection)
    for text in texts:
        for statement in _statements(connection, text):
            done = len(connection.reports)
            result = _execute(connection, statement)
            if result is not None:
                write_result(result.table, result.names, style)
            for report in connection.reports[done:]:
                click.echo(report.bill(), err=True)
                for note in report.notes:
                    click.echo(f"note: {note}", err=True)


class _Result(NamedTuple):
    """The rows of a statement, and its columns as it names them."""

    table: pa.Table
    names: list[str]


def _execute(connection: Connection, statement: duckdb.Statement) -> _Result | None:
    """Run a statement to its end; its result, None where it has no rows."""
    import duckdb

    from smartsql.cli.interrupt import interruptible

    def work() -> _Result | None:
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
            return _Result(connection.to_arrow_table(), columns)

    try:
        return interruptible(work, connection.interrupt)
    except duckdb.Error as error:
        raise QueryError(str(error)) from error


def _preview(connection: Connection, texts: list[str]) -> None:
    """Preview every statement with a smart call; all others run and are undone."""
    import duckdb

    from smartsql.sql.normalise import mentions_smart_call

    not_run: list[str] = []  # statements that would have changed something
    connection.execute("BEGIN")
    try:
        for text in texts:
            for statement in _statements(connection, text):
                if mentions_smart_call(statement.query):
                    for preview in connection.preview(statement.query):
                        click.echo(str(preview))
                    if statement.type != duckdb.StatementType.SELECT:
                        not_run.append(statement.query.strip().rstrip(";"))
                elif statement.type in (
                    duckdb.StatementType.COPY,
                    duckdb.StatementType.EXPORT,
                    duckdb.StatementType.TRANSACTION,
                ):
                    click.echo(f"dry run, left out: {statement.query.strip()}", err=True)
                else:
                    connection.execute(statement.query)
    except (duckdb.CatalogException, duckdb.BinderException) as error:
        raise QueryError(one_line(error) + _not_created(not_run)) from error
    except duckdb.Error as error:
        raise QueryError(str(error)) from error
    finally:
        connection.rollback()


def _not_created(not_run: list[str]) -> str:
    """Why a statement of a dry run may miss what an earlier one makes."""
    if not not_run:
        return ""
    return (
        f" The dry run created nothing for the statements with smart calls before this one "
        f"({'; '.join(not_run)}); preview the statements that need them after those have run."
    )


def _keep_reports(path: str, reports: list[Report]) -> bool:
    """Write the reports, if possible; an error of the statements themselves goes first."""
    try:
        write_reports(path, reports)
    except OSError as error:
        click.echo(
            f"error: cannot write the report {path!r}: {error.strerror}. The answers are kept; "
            f"run the statement again with another --report.",
            err=True,
        )
        return False
    return True


def write_reports(path: str, reports: list[Report]) -> None:
    """Reports as a page, or as JSON (one object, or an array of several)."""
    if path.endswith(".html"):
        body = "\n<hr>\n".join(report.to_html() for report in reports)
        text = f"<!doctype html><meta charset='utf-8'><title>smartsql</title>\n{body}\n"
    else:
        values = [report.to_dict() for report in reports]
        text = json.dumps(values[0] if len(values) == 1 else values, indent=2, ensure_ascii=False)
    Path(path).write_text(text, encoding="utf-8")
