"""The engine's own time and memory: models that answer at once, so that nothing else is measured.

    python benchmarks/engine_time.py --rows 1000000

A table of distinct 100-byte prompts is answered by two functions, the reference and a candidate
that agrees with it on 97 of 100 prompts. Without `--priced` they are free, as local functions are
by default, and cost is their measured time; with it, every call is claimed, reserved and billed as
those of a remote model are. Printed: seconds of the statement, of the models' own
functions and of the rest, peak memory of the process, and the time of `import smartsql`.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import smartsql

TABLE = """
CREATE TABLE rows AS
SELECT i AS id, rpad('prompt number ' || i || ' ', 100, 'lorem ipsum dolor sit amet ') AS prompt
FROM range({rows}) t(i)
"""


class Timed:
    """A function over texts that knows how long it ran; `work` makes the reference the slower."""

    def __init__(self, salt: bytes, share: int, work: int) -> None:
        self.salt, self.share, self.work, self.seconds = salt, share, work, 0.0

    def __call__(self, texts: list[str]) -> list[str]:
        start = time.perf_counter()
        said = []
        for text in texts:
            truth = len(text) + ord(text[14])
            for _ in range(self.work):
                draw = hashlib.blake2b(text.encode(), digest_size=2, salt=self.salt).digest()
            wrong = (draw[0] << 8 | draw[1]) % 100 < self.share
            said.append("yes" if (truth % 2 == 0) != wrong else "no")
        self.seconds += time.perf_counter() - start
        return said


def measure(rows: int, delta: float, threads: int, *, priced: bool) -> None:
    big, small = Timed(b"big", 0, 20), Timed(b"small", 3, 1)
    prices = [(100.0, big, True), (1.0, small, False)]
    models = [
        smartsql.Model(
            name="big" if is_reference else "small",
            kind="python",
            function=function,
            version="1",
            reference=is_reference,
            input_usd_per_mtok=usd if priced else None,
            output_usd_per_mtok=usd if priced else None,
        )
        for usd, function, is_reference in prices
    ]
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "answers.sqlite")
        with smartsql.connect(
            config=smartsql.Settings(), models=models, store=store, seed=1
        ) as con:
            con.execute(f"SET threads = {threads}")
            con.execute(TABLE.format(rows=rows))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            for run in ("first run", "second run"):
                big.seconds = small.seconds = 0.0
                start, cpu = time.perf_counter(), time.process_time()
                answers = f"SELECT smart_llm(prompt, {delta}) AS a FROM rows"
                counts = con.execute(f"SELECT count(*), count(a) FROM ({answers})").fetchone()
                total, cpu = time.perf_counter() - start, time.process_time() - cpu
                assert counts == (rows, rows), counts
                functions = big.seconds + small.seconds
                report = con.reports[-1]
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                print(
                    f"{run}: {total:.1f} s ({cpu:.1f} s of processors), of it models "
                    f"{functions:.1f} s, engine {total - functions:.1f} s (decisions "
                    f"{report.decide_s:.1f} s); peak {peak:,.0f} MB ({before:,.0f} MB before); "
                    f"{report.bill()}",
                    flush=True,
                )


def import_time() -> float:
    """Seconds of `import smartsql` beyond an empty interpreter; median of five."""

    def seconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    differences = sorted(seconds("import smartsql") - seconds("pass") for _ in range(5))
    return differences[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--delta", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--priced", action="store_true", help="functions with a price per token")
    given = parser.parse_args()
    measure(given.rows, given.delta, given.threads, priced=given.priced)
    print(f"import smartsql: {import_time():.3f} s")


if __name__ == "__main__":
    main()
