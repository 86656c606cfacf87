"""What early stopping and guards save, and what they cost: prompts asked, sets, seconds.

    python benchmarks/least_data.py [--rows 1000000]

Each statement runs over one table with an engine that answers at once with a digit of a hash, so
the seconds are those of SQL alone. "as one set" is the same statement with the rules that only
spare questions turned off. No model is asked.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import duckdb

from smartsql.sql.normalise import plan
from smartsql.sql.normalise.binding.names import Names, binder
from smartsql.sql.session import Connection, connect
from tests.sql.doubles import RecordingEngine

STATEMENTS = {
    "LIMIT 10, every 3rd row": "SELECT i FROM t WHERE smart_llm(s) > 'a' ORDER BY i LIMIT 10",
    "LIMIT 10, every 16th row": "SELECT i FROM t WHERE smart_llm(s) = 'a' ORDER BY o LIMIT 10",
    "LIMIT 10, every 256th row": (
        "SELECT i FROM t WHERE smart_llm(s) = 'a' AND smart_llm(s || o) = 'a' ORDER BY o LIMIT 10"
    ),
    "LIMIT 10, no row": "SELECT i FROM t WHERE smart_llm(s) = 'z' LIMIT 10",
    "EXISTS": "SELECT EXISTS (SELECT i FROM t WHERE smart_llm(s) = 'a')",
    "CASE, every 100th row": "SELECT max(CASE WHEN i % 100 = 3 THEN smart_llm(s) END) FROM t",
    "OR, every 100th row": "SELECT count(*) FROM t WHERE i % 100 <> 3 OR smart_llm(s) = 'a'",
    "outer condition, every 100th row": (
        "SELECT max(a) FROM (SELECT i, smart_llm(s) AS a FROM t) WHERE i % 100 = 3"
    ),
    "two conditions": (
        "SELECT count(*) FROM t WHERE smart_llm(s) = 'a' AND smart_llm(s || o) = 'a'"
    ),
}


def digit(prompt: str) -> str:
    """A hexadecimal digit that looks random."""
    return hashlib.md5(prompt.encode()).hexdigest()[0]


def as_one_set(query: str, con: duckdb.DuckDBPyConnection) -> str:
    """The statement with only those rules that it cannot run without."""
    tree = plan.parse(query)
    assert tree is not None
    return plan._planned(query, tree, Names(binder(con), economical=False))


def measured(con: Connection, engine: RecordingEngine, run: object, query: str) -> str:
    """Prompts, sets and seconds of one execution."""
    engine.asked.clear()
    begun = perf_counter()
    run.execute(query).fetchall()  # type: ignore[attr-defined]
    seconds = perf_counter() - begun
    prompts = sum(len(weights) for _, weights in engine.asked)
    return f"{prompts:>11,} {len(engine.asked):>5} {seconds:>8.2f}"


def main() -> None:
    """Print one line for each statement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    rows = parser.parse_args().rows
    engine = RecordingEngine(digit)
    with connect(engine=engine) as con:
        con.execute(
            f"CREATE TABLE t AS SELECT i, i * 7919 % {rows} AS o, 'text ' || i AS s "
            f"FROM range({rows}) x(i)"
        )
        print(f"{'':34} {'prompts':>11} {'sets':>5} {'s':>8}   as one set: prompts, sets, s")
        for name, query in STATEMENTS.items():
            ours = measured(con, engine, con, query)
            whole = measured(con, engine, con._con, as_one_set(query, con._con))
            print(f"{name:34} {ours}   {whole}")


if __name__ == "__main__":
    main()
