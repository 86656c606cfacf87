"""Rows through the barrier under a memory limit: DuckDB's window spills, the sets stay small.

The models are a function that answers at once, so that what is left is the barrier: collecting
rows, counting them, looking answers up.
"""

from __future__ import annotations

import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.compute as pc

from smartsql.sql.session import connect


@dataclass(frozen=True, slots=True)
class Echo:
    """Answers in the form that the barrier reads."""

    answer: pa.Array
    model: pa.Array
    source: pa.Array
    confidence: pa.Array
    cost_usd: pa.Array
    error: pa.Array


class AtOnce:
    """An engine that answers with the first letter of each prompt."""

    def answer(self, _: object, prompts: pa.Array, __: object) -> Echo:
        """The answers to a complete set."""
        n = len(prompts)
        letters = pc.utf8_slice_codeunits(prompts, 0, 1)
        named = pa.array(["echo"] * n)
        return Echo(
            letters, named, named, pa.nulls(n, pa.float64()), pa.nulls(n, pa.float64()),
            pa.nulls(n, pa.string()),
        )  # fmt: skip

    def cancel(self, connection: int | None = None) -> None:
        """Nothing runs that could be cancelled."""

    def _nothing(self) -> pa.Table:
        return pa.table({"name": pa.array([], pa.string())})

    reports = models = ledger = tasks = _nothing


def peak_gb() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@click.command(help=__doc__)
@click.option("--rows", default=10_000_000, type=click.IntRange(min=1))
@click.option("--prompts", default=100_000, type=click.IntRange(min=1), help="Distinct prompts.")
@click.option("--memory", default="2GB", help="DuckDB's memory limit.")
def main(rows: int, prompts: int, memory: str) -> None:
    """Answer all rows of one table and print time and memory."""
    with (
        tempfile.TemporaryDirectory() as folder,
        connect(
            str(Path(folder) / "rows.duckdb"),
            engine=AtOnce(),  # type: ignore[arg-type]  # no preview is made here
        ) as con,
    ):
        con.execute(f"SET memory_limit = '{memory}'; SET temp_directory = '{folder}/spilled'")
        con.execute(
            f"CREATE TABLE reviews AS SELECT i, 'review ' || (i % {prompts}) || repeat('x', 70) "
            f"AS review FROM range({rows}) x(i)"
        )
        before, begun = peak_gb(), time.perf_counter()
        query = "SELECT count(a), sum(i) FROM (SELECT i, smart_llm(review) AS a FROM reviews)"
        found = con.execute(query).fetchone()
        seconds = time.perf_counter() - begun
        assert found == (rows, rows * (rows - 1) // 2), found
        print(
            f"{rows:,} rows, {prompts:,} distinct prompts, limit {memory}: {seconds:.1f} s, "
            f"{rows / seconds / 1e6:.2f} M rows/s; memory at most {peak_gb():.2f} GB "
            f"({before:.2f} GB before)"
        )


if __name__ == "__main__":
    main()
