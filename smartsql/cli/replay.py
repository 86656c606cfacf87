"""`smartsql replay`: what strategies would have cost on recorded answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, TextIO

import click

from smartsql.errors import ParameterError, SmartSQLError

if TYPE_CHECKING:
    from smartsql.replay.ibc import IbcTable
    from smartsql.replay.recording import Recording
    from smartsql.replay.runs import Case, Measured, Result
    from smartsql.replay.self_agreement import SelfAgreement


def _numbers(context: click.Context, parameter: click.Parameter, value: str) -> list[float]:
    """Numbers between commas; wrong usage if a part is none."""
    try:
        return [float(part) for part in value.split(",")]
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not a list of numbers such as 0.02,0.05,0.1", context, parameter
        ) from error


class _Command(click.Command):
    """Lists the strategies at the end of its help, when help is asked for and not before."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The names, as `--strategy` takes them."""
        from smartsql.replay.strategies import STRATEGIES, SUMMARIES

        with formatter.section("Strategies"):
            formatter.write_dl([(name, SUMMARIES[name]) for name in STRATEGIES])


@click.command(cls=_Command)
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
@click.option(
    "--strategy",
    default="certified",
    show_default=True,
    metavar="NAME,NAME,..",
    help="See below; automix-.. prints the incremental benefit per cost too.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--first-seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--self-agreement",
    metavar="MODEL",
    help="A second run of the reference: say how often it repeats its own answer. It is no "
    "candidate unless --models names it.",
)
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
    self_agreement: str | None,
    out: str | None,
) -> None:
    """Replay strategies over recorded answers and print what each would have cost.

    Every seed is one random order of the rows. No model is asked.
    """
    from smartsql.replay.parquet import load
    from smartsql.replay.runs import listed

    try:
        recording = load(file, reference, models=models or None, dataset=dataset)
        repeats = None
        if self_agreement is not None:
            repeats = _repeats(file, reference, self_agreement, dataset)
            if not models:
                recording = recording.without(repeats.model)
        cases = listed(
            recording,
            deltas=deltas,
            gamma=gamma,
            strategies=[name.strip() for name in strategy.split(",")],
            seeds=seeds,
            first_seed=first_seed,
        )
        _print(recording, cases, out)
        if repeats is not None:
            click.echo(f"\n{repeats.text()}")
    except ParameterError as error:
        raise click.UsageError(str(error)) from error
    except SmartSQLError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"cannot write {out}: {error.strerror}") from error


def _print(recording: Recording, cases: Sequence[Case], out: str | None) -> None:
    """Run the cases, write each as it ends, print the tables."""
    from smartsql.replay import runs as engine
    from smartsql.replay.ibc import IbcTable

    increments = IbcTable(recording.correct is not None)
    runs = _shown(engine.measured_cases(recording, cases), len(cases))
    with ExitStack() as stack:
        lines = stack.enter_context(open(out, "w", encoding="utf-8")) if out else None
        click.echo(engine.summary(_written(_noted(runs, increments), lines)))
    if any(case.strategy.startswith("automix-") for case in cases):
        click.echo(f"\n{increments.text()}")


def _repeats(file: str, reference: str, second: str, dataset: str | None) -> SelfAgreement:
    """The reference beside its second run, whichever models are candidates."""
    from smartsql.replay.parquet import load
    from smartsql.replay.self_agreement import self_agreement

    pair = load(file, reference, models=[second], dataset=dataset)
    return self_agreement(pair, pair.models[-1])


def _noted(runs: Iterable[Measured], increments: IbcTable) -> Iterator[Result]:
    """Results as they pass, their increments counted."""
    for run in runs:
        result = run.result
        increments.add(str(result["strategy"]), float(str(result["delta"])), run.benefit)
        yield result


def _written(results: Iterable[Result], lines: TextIO | None) -> Iterator[Result]:
    """Results as they pass, each written as one line of JSON."""
    for result in results:
        if lines is not None:
            lines.write(json.dumps(result, ensure_ascii=False) + "\n")
        yield result


def _shown(runs: Iterable[Measured], n_runs: int) -> Iterator[Measured]:
    """Runs as they pass, with progress where somebody watches."""
    if not sys.stderr.isatty():
        yield from runs
        return
    with click.progressbar(runs, length=n_runs, label="replaying", file=sys.stderr) as shown:
        yield from shown
