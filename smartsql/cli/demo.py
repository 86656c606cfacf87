"""`smartsql demo`: the main job on real reviews with a real language model in this process."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import platformdirs

from smartsql.reports.report import Report

if TYPE_CHECKING:
    from smartsql.api import Connection
    from smartsql.config import Settings

EVERY_S = 5.0
SHOWN_ROWS = 8
MAX_CHARS = 80
"""Longer reviews are left out, so that a small machine is done in minutes."""


@click.command()
@click.option("--rows", default=1000, show_default=True, help="Reviews to answer, at most 2372.")
@click.option("--delta", default=0.1, show_default=True, help="Share of rows that may differ.")
@click.option("--gamma", default=0.95, show_default=True, help="How sure that must be.")
@click.option("--store", metavar="FILE", help="Where paid answers are kept [default: user data].")
@click.option("--forget", is_flag=True, help="Throw the demo's paid answers away first.")
def demo(*, rows: int, delta: float, gamma: float, store: str | None, forget: bool) -> int:
    """Answer real reviews with a local language model, under the promise; no key, no network.

    The first run takes some minutes, mostly for the reference model. The second pays nothing.
    """
    import smartsql
    from smartsql.demo import human_labels, reviews
    from smartsql.demo.lexicon import analyzer
    from smartsql.demo.packages import check_packages
    from smartsql.gateway.kept import LEARNED

    check_packages()
    analyzer()  # costs are seconds here: reading the word list is not part of an answer
    path = store or str(
        Path(platformdirs.user_data_dir("smartsql", appauthor=False)) / "demo.sqlite"
    )
    if forget:
        for suffix in ("", "-wal", "-shm"):
            Path(path + suffix).unlink(missing_ok=True)
        shutil.rmtree(path + LEARNED, ignore_errors=True)
    data = reviews(rows, MAX_CHARS)
    _say(
        f"{rows:,} reviews of one short sentence (Rotten Tomatoes). Models:\n"
        f"  reference  gemma-3-270m: a language model in this process, on one thread\n"
        f"  candidate  lexicon: a list of words with a mood (VADER)\n"
        f"  candidate  classifier: learns from the lexicon, then from the reference's answers\n"
        f"None has a price, so every cost below is measured seconds of computing.\n"
    )
    with smartsql.connect(config=settings(path), progress=_Progress()) as con:
        con.execute("CREATE TABLE reviews (id INTEGER, review VARCHAR, people VARCHAR)")
        con.executemany(
            "INSERT INTO reviews VALUES (?, ?, ?)",
            [(*row, label) for row, label in zip(data, human_labels(rows, MAX_CHARS), strict=True)],
        )
        _answer(con, delta, gamma)
        report = con.reports[-1]
        _show(con, report)
        _verify(con, report)
    return 0


def settings(store: str) -> Settings:
    """The demo's configuration."""
    from smartsql.config import Model, Settings, TaskSettings
    from smartsql.demo import LABELS, TASK_PROMPT, lexicon
    from smartsql.demo.packages import MODEL_PACKAGE

    version = importlib.metadata.version("vaderSentiment")
    return Settings(
        store=store,
        default_task="tone",
        tasks={"tone": TaskSettings(prompt=TASK_PROMPT, labels=LABELS)},
        models=(
            Model(
                name="gemma-3-270m",
                kind="llama_cpp",
                path=f"package:{MODEL_PACKAGE}",
                reference=True,
            ),
            Model(name="lexicon", kind="python", function=lexicon, version=version),
            Model(name="classifier", kind="learned", parameters={"distils": "lexicon"}),
        ),
    )


def _answer(con: Connection, delta: float, gamma: float) -> None:
    call = f"smart_llm(review, {delta:g}, {gamma:g})"
    _say(f"smartsql> CREATE TABLE tones AS SELECT *, {call} AS tone FROM reviews;")
    start = time.perf_counter()
    con.execute(f"CREATE TABLE tones AS SELECT *, {call} AS tone FROM reviews")
    _say(f"done in {time.perf_counter() - start:.1f} s\n")


def _show(con: Connection, report: Report) -> None:
    from smartsql.demo import told

    for query in (
        f"SELECT id, tone, review FROM tones ORDER BY id LIMIT {SHOWN_ROWS}",
        "SELECT tone, count(*) AS n FROM tones GROUP BY tone ORDER BY tone",
    ):
        _say(f"smartsql> {query};")
        con.sql(query).show(max_width=100)
    _say("The report (con.reports[-1], or FROM smart_reports()):")
    for what, value in report.lines():
        _say(f"  {what:12} {value}")
    _say("\nWhat the routing did:")
    for sentence in told(report):
        _say(textwrap.fill(sentence, 98, initial_indent="  ", subsequent_indent="  "))
    mean_s = report.models[0].mean_cost
    _say(
        f"\nThe reference alone: {report.prompts:,} calls of {mean_s:.3f} s, "
        f"{report.money(report.reference_spend)} of computing. This run: "
        f"{report.money(report.spend)}."
    )
    if not sum(model.calls for model in report.models):
        _say("Nothing was asked: all answers were paid for earlier.")
    (share,) = con.execute("SELECT avg((tone = people)::INTEGER) FROM tones").fetchone() or (0.0,)
    _say(f"People agree with {share:.1%} of the answers (not part of the promise).")


def _verify(con: Connection, report: Report) -> None:
    from smartsql.reports.verify import verify

    wrong = [check for check in verify(report.to_dict(), con.engine.store) if not check.holds]
    for check in wrong:
        _say(f"FAILED {check.what}: {check.detail}")
    if not wrong:
        _say("The report was checked again from the ledger: it holds.")


def _say(text: str) -> None:
    click.echo(text)
    sys.stdout.flush()


class _Progress:
    """A line now and then: how many calls of this step are done."""

    def __init__(self) -> None:
        self._next = time.monotonic() + EVERY_S

    def __call__(self, model: str, done: int, total: int, spent_usd: float) -> None:
        now = time.monotonic()
        if now >= self._next and done < total:
            self._next = now + EVERY_S
            click.echo(f"  ... {model}: {done:,} of {total:,} calls of this step", err=True)
