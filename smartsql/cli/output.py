"""Results on stdout: DuckDB's own writers, so that types look as its users know them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("box", "csv", "json", "jsonlines", "markdown")

_COPY = {
    "csv": "(FORMAT csv, HEADER)",
    "json": "(FORMAT json, ARRAY true)",
    "jsonlines": "(FORMAT json, ARRAY false)",
}


def write_result(table: pa.Table, style: str) -> None:
    """Write a result to stdout in one of `FORMATS`."""
    import duckdb

    with duckdb.connect() as con:
        con.register("result", table)
        if style in _COPY:
            _copy(con, _COPY[style])
        elif style == "markdown":
            _markdown(con)
        elif table.column_names == ["explain_key", "explain_value"]:
            print("\n".join(table["explain_value"].to_pylist()))  # drawn by DuckDB already
        else:
            width = shutil.get_terminal_size((120, 24)).columns
            con.table("result").show(max_width=max(width, 80), max_rows=40)
    sys.stdout.flush()


def _copy(con: Any, options: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "result")
        con.execute(f"COPY result TO '{path}' {options}")
        with open(path, encoding="utf-8", newline="") as file:
            shutil.copyfileobj(file, sys.stdout)


def _markdown(con: Any) -> None:
    """A Markdown table; pipes and line ends in cells are escaped."""
    names = [column[0] for column in con.execute("DESCRIBE result").fetchall()]
    print(_markdown_row(names))
    print(_markdown_row(["---"] * len(names)))
    rows = con.execute("SELECT COLUMNS(*)::VARCHAR FROM result")
    while some := rows.fetchmany(1000):
        for row in some:
            print(_markdown_row(["NULL" if cell is None else cell for cell in row]))


def _markdown_row(cells: list[str]) -> str:
    escaped = (cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(' '.join(cell.splitlines()) for cell in escaped)} |"
