"""`smartsql replay`: what strategies would have cost on recorded answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, TextIO

import click

from smartsql.errors import ParameterError, SmartSQLError

if TYPE_CHECKING:
    from smartsql.replay import Result


def _numbers(context: click.Context, parameter: click.Parameter, value: str) -> list[float]:
    """Numbers between commas; wrong usage if a part is none."""
    try:
        return [float(part) for part in value.split(",")]
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not a list of numbers such as 0.02,0.05,0.1", context, parameter
        ) from error


@click.command()
@click.argument("file", metavar="FILE.parquet", type=click.Path(exists=True, dir_okay=False))
@click.option("--reference", required=True, metavar="MODEL", help="Its answers are right.")
@click.option(
    "--models",
    multiple=True,
    metavar="A,B,..",
    help="Candidates [default: all other models of the file]; may be given repeatedly.",
)
@click.option("--dataset", metavar="NAME", help="Keep lines whose column dataset says so.")
@click.option(
    "--delta", "deltas", callback=_numbers, default="0.1", show_default=True, metavar="X,Y,.."
)
@click.option("--gamma", type=float, default=0.95, show_default=True)
@click.option("--strategy", default="certified", show_default=True, metavar="NAME,NAME,..")
@click.option("--seeds", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--first-seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--out", type=click.Path(dir_okay=False, writable=True), help="One JSON object a run."
)
def replay(
    *,
    file: str,
    reference: str,
    models: tuple[str, ...],
    dataset: str | None,
    deltas: list[float],
    gamma: float,
    strategy: str,
    seeds: int,
    first_seed: int,
    out: str | None,
) -> None:
    """Replay strategies over recorded answers and print what each would have cost.

    Every seed is one random order of the rows. No model is asked.
    """
    from smartsql import replay as engine

    strategies = list(dict.fromkeys(name.strip() for name in strategy.split(",")))
    deltas = list(dict.fromkeys(deltas))
    try:
        results = engine.replay(
            file,
            reference,
            models=models or None,
            dataset=dataset,
            deltas=deltas,
            gamma=gamma,
            strategies=strategies,
            seeds=seeds,
            first_seed=first_seed,
        )
        n_runs = len(strategies) * len(deltas) * seeds
        with ExitStack() as stack:
            lines = stack.enter_context(open(out, "w", encoding="utf-8")) if out else None
            click.echo(engine.summary(_written(_shown(results, n_runs), lines)))
    except ParameterError as error:
        raise click.UsageError(str(error)) from error
    except SmartSQLError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"cannot write {out}: {error.strerror}") from error


def _written(results: Iterable[Result], lines: TextIO | None) -> Iterator[Result]:
    """Results as they pass, each written as one line of JSON."""
    for result in results:
        if lines is not None:
            lines.write(json.dumps(result, ensure_ascii=False) + "\n")
        yield result


def _shown(results: Iterable[Result], n_runs: int) -> Iterator[Result]:
    """Results as they pass, with progress where somebody watches."""
    if not sys.stderr.isatty():
        yield from results
        return
    with click.progressbar(results, length=n_runs, label="replaying", file=sys.stderr) as shown:
        yield from shown
