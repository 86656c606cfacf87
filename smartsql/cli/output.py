"""Results on stdout: DuckDB's own writers, so that types look as its users know them.

Cells, answers and errors were written by others. What people look at shows their control characters
as signs; CSV and JSON that go to a file or another program are data, and stay as they are.
"""

from __future__ import annotations

import csv
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from smartsql.printable import discreet, plain

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("box", "csv", "json", "jsonlines", "markdown")

_COPY = {
    "csv": "(FORMAT csv, HEADER false)",  # the header is ours: COPY tells equal names apart
    "json": "(FORMAT json, ARRAY true)",
    "jsonlines": "(FORMAT json, ARRAY false)",
}


def say(text: str, *, err: bool = True) -> None:
    """Print a message; nothing in it is obeyed by a terminal, and no key of a secret shows."""
    click.echo(plain(discreet(text)), err=err)


def keep_types(con: Any) -> None:
    """Let Arrow tables of a connection keep types that Arrow lacks (BIT, HUGEINT, UUID, ..)."""
    con.execute("SET arrow_lossless_conversion = true")


def write_result(table: pa.Table, names: Sequence[str], style: str) -> None:
    """Write a result to stdout in one of `FORMATS`.

    Args:
        table: the result, of a connection that was told to `keep_types`.
        names: its columns as the statement names them; two may be equal, which Arrow's and the
            keys of a JSON object cannot be.
        style: one of `FORMATS`.
    """
    import duckdb

    columns = [f"c{i}" for i in range(len(names))]
    with duckdb.connect() as con, _looked_at(style):
        _same_time_zone(con, table)
        con.register("result", table.rename_columns(columns))
        named = ", ".join(f"{c} AS {_quoted(n)}" for c, n in zip(columns, names, strict=True))
        query = f"SELECT {named} FROM result"
        if style in _COPY:
            if style == "csv":
                csv.writer(sys.stdout, lineterminator="\n").writerow(names)
            _copy(con, query, _COPY[style])
        elif style == "markdown":
            _markdown(con, names)
        elif names == ["explain_key", "explain_value"]:
            print("\n".join(table["explain_value"].to_pylist()))  # drawn by DuckDB already
        else:
            width = shutil.get_terminal_size((120, 24)).columns
            con.sql(query).show(max_width=max(width, 80), max_rows=40)
    sys.stdout.flush()


class _Plain:
    """A stream that shows control characters as signs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; how long it was."""
        self._stream.write(plain(text))
        return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        self._stream.flush()


@contextmanager
def _looked_at(style: str) -> Iterator[None]:
    """Have stdout show signs where people read it: in drawn tables, and at a terminal."""
    if style in _COPY and not sys.stdout.isatty():
        yield
    else:
        with redirect_stdout(cast(TextIO, _Plain(sys.stdout))):
            yield


def _quoted(name: str) -> str:
    """A name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def _same_time_zone(con: Any, table: pa.Table) -> None:
    """Show points in time in the time zone of the session that made the table."""
    zones = [zone for field in table.schema if (zone := getattr(field.type, "tz", None))]
    if zones:
        con.execute(f"SET TimeZone = '{zones[0]}'")


def _copy(con: Any, query: str, options: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "result")
        con.execute(f"COPY ({query}) TO '{path}' {options}")
        with open(path, encoding="utf-8", newline="") as file:
            shutil.copyfileobj(file, sys.stdout)


def _markdown(con: Any, names: Sequence[str]) -> None:
    """A Markdown table; pipes and line ends in cells are escaped."""
    print(_markdown_row(names))
    print(_markdown_row(["---"] * len(names)))
    rows = con.execute("SELECT COLUMNS(*)::VARCHAR FROM result")
    while some := rows.fetchmany(1000):
        for row in some:
            print(_markdown_row(["NULL" if cell is None else cell for cell in row]))


def _markdown_row(cells: Sequence[str]) -> str:
    escaped = (cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(' '.join(cell.splitlines()) for cell in escaped)} |"
