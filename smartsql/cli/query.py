"""`smartsql [DATABASE] -c SQL`: run statements, print their answers and the bill."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smartsql.cli.output import FORMATS, keep_types
from smartsql.errors import QueryError
from smartsql.reports.report import Report

if TYPE_CHECKING:
    from smartsql.api import Connection
    from smartsql.asking.exchange import Progress

EPILOG = """Other commands: smartsql batches, smartsql demo, smartsql forget, smartsql replay,
smartsql rescue, smartsql verify (each has --help).

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 budget reached, 4 answers are under way in batches.
"""


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
@click.option("--yes", is_flag=True, help="Do not ask, whatever a statement may cost.")
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
    yes: bool,
    report: str | None,
    read_only: bool,
    style: str,
) -> int:
    """Run SQL with smart calls on a DuckDB database (in memory by default).

    Without SQL, and at a terminal, it is a shell.
    """
    from smartsql.cli.dry_run import DryRun
    from smartsql.cli.progress import progress_line
    from smartsql.cli.shell import Shell

    assert style in FORMATS
    if report:
        _check_report(report)
    texts = _texts(commands, file)
    if dry_run and not texts:
        raise click.UsageError("--dry-run needs SQL: give it with -c or -f, or on standard input")
    written = True
    with progress_line() as progress:
        settings = {"budget_usd": budget, "self_agreement": self_agreement}
        with _opened(database, config, read_only, progress, settings) as connection:
            try:
                if dry_run:
                    DryRun(connection).run(texts)
                elif texts:
                    _run(connection, texts, style, yes=yes)
                else:
                    Shell(connection, style, yes=yes).run()
            finally:
                if report and connection.reports:
                    written = _keep_reports(report, connection.reports)
    return 0 if written else 1


def _opened(
    database: str,
    config: str | None,
    read_only: bool,
    progress: Progress | None,
    settings: dict[str, Any],
) -> Connection:
    """The database, with smart calls.

    Raises:
        QueryError: DuckDB cannot open it.
    """
    import duckdb

    import smartsql

    try:
        return smartsql.connect(
            database, config, read_only=read_only, progress=progress, **settings
        )
    except duckdb.Error as error:
        raise QueryError(f"cannot open the database {database!r}: {one_line(error)}") from error


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
    """The SQL to run: all -c, then the file, or standard input; nothing for the shell."""
    texts = list(commands)
    try:
        if file == "-" or (file is None and not texts and not sys.stdin.isatty()):
            texts.append(sys.stdin.read())
        elif file is not None:
            texts.append(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"cannot read {file or 'standard input'!r}: {error}") from error
    if texts and not any(text.strip() for text in texts):
        raise click.UsageError("give SQL with -c or -f, or on standard input")
    return texts


def _run(connection: Connection, texts: list[str], style: str, *, yes: bool) -> None:
    from smartsql.cli.statements import run_statement, statements

    keep_types(connection)
    for text in texts:
        for statement in statements(connection, text):
            run_statement(connection, statement, style, yes=yes)


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
