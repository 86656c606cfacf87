"""How long it takes to plan the calls of a long query: at most 50 ms for a hundred lines.

    python benchmarks/normalise_time.py [--repeat 20]

Prints a line for each query: lines, calls, best and median milliseconds of processor time, so that
waiting for other processes does not count. Nothing runs but the planning itself, names of columns
bound on an empty database included. Each turn plans a text that was not seen before.
"""

from __future__ import annotations

import argparse
import statistics
import time

import duckdb

from smartsql.sql.normalise import normalise

LIMIT_MS = 50.0
TABLES = """
CREATE TABLE lineitem(l_orderkey BIGINT, l_partkey BIGINT, l_quantity DECIMAL(15,2),
    l_extendedprice DECIMAL(15,2), l_shipmode VARCHAR, l_comment VARCHAR);
CREATE TABLE orders(o_orderkey BIGINT, o_comment VARCHAR);
"""
_PART = """q{i} AS (
  SELECT l_orderkey, l_partkey,
    sum(l_quantity) AS qty{i},
    avg(l_extendedprice) AS p{i},
    max({tone}) AS tone{i}
  FROM lineitem
  JOIN orders ON l_orderkey = o_orderkey
  WHERE l_shipmode = 'AIR'
    AND {remark} > '{i}'
  GROUP BY l_orderkey, l_partkey
  HAVING count(*) > 0)"""
PARTS = 9


def query(calls: int) -> str:
    """A query of about a hundred lines with so many calls, two in each of nine CTEs at most."""
    parts = []
    for i in range(PARTS):
        tone = "smart_llm(l_comment)" if calls > PARTS + i else "l_comment"
        remark = "smart_llm(o_comment)" if calls > i else "o_comment"
        parts.append(_PART.format(i=i, tone=tone, remark=remark))
    joins = "\n".join(f"JOIN q{i} USING (l_orderkey)" for i in range(1, PARTS))
    return f"WITH {', '.join(parts)}\nSELECT *\nFROM q0\n{joins}"


def measure(text: str, con: duckdb.DuckDBPyConnection, repeat: int) -> list[float]:
    """Milliseconds of processor time of each of several plannings of a text."""
    times = []
    for turn in range(repeat):
        fresh = text.replace("'AIR'", f"'AIR {turn}'")  # nothing kept from the last turn helps
        begin = time.process_time()
        normalise(fresh, con)
        times.append((time.process_time() - begin) * 1e3)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=20)
    repeat = parser.parse_args().repeat
    with duckdb.connect() as con:
        con.execute(TABLES)
        normalise(query(1), con)  # loads what is loaded once
        for calls in (0, 1, PARTS, 2 * PARTS):
            text = query(calls)
            times = measure(text, con, repeat)
            lines = text.count("\n") + 1
            print(
                f"{lines} lines, {calls:2d} calls: best {min(times):6.1f} ms, "
                f"median {statistics.median(times):6.1f} ms (limit {LIMIT_MS:g})"
            )


if __name__ == "__main__":
    main()
