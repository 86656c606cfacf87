"""Strategies on six tables of recorded answers, beside the lines that other systems set.

    python benchmarks/recorded.py DIRECTORY [--strategy certified,smart-model-mix] [--seeds 50]

DIRECTORY holds the tables as Parquet files (`smartsql replay --help` has the columns). Costs are
shares of asking the reference about every row, every call charged; candidates dearer than 0.98 of
the reference are left out, as in the lines. The confidences of triviaqa come from a second call to
the same model, which the recorded costs leave out: it is charged here as much as the first one,
whenever a strategy wants to see the confidence. `bargain` has the pair of models that the lines
fixed beforehand, unless `--choose-pairs` has it choose one on labelled rows, which it pays for.

`--order stored` gives the strategies that read a table in its order, or learn from its first rows,
the order of the file, where nothing protects them from sorted rows. Nothing is random about them
then, so they run once.

A row of the table is printed as soon as it is known; at the end stands what the cells with lines
say about each strategy. A share of broken promises has its standard error beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from math import isnan, sqrt
from pathlib import Path
from typing import TextIO

import click
import numpy as np

from smartsql.replay.parquet import load
from smartsql.replay.recording import Recording
from smartsql.replay.runs import Case, Result, replay_cases
from smartsql.types import Requirement

GAMMA = 0.95
DEAREST = 0.98
"""Share of the reference's mean cost above which a candidate is left out."""
WHOLE = 1.02
"""Cost, relative to the reference, above which a strategy should never have been used."""

REFERENCES = {
    "extract_ae110k": "gpt-4-0613 (10-shot schema)",
    "gsm8k_routellm": "gpt-4-1106-preview",
    "match_abtbuy": "llama3.1-70b-ft",
    "mmlu": "gpt-4o",
    "reviews_amazon_local": "qwen2.5-coder-1.5b",
    "triviaqa": "gpt-4o",
}

SELF_VERIFIED = ("triviaqa",)
"""Tables whose confidences come from second calls."""

PAIRS = {
    "mmlu": "gpt-4o-mini",
    "reviews_amazon_local": "qwen2.5-coder-0.5b",
    "triviaqa": "gpt-4o-mini",
}
"""The cheap model of the lines' two-model cascade; where none has confidences, one is chosen."""

READ_IN_ORDER = ("smart-", "automix-", "data-shunt", "threshold")
"""How strategies begin that trust the order of the rows; the others draw rows of their own."""


@dataclass(frozen=True, slots=True)
class Line:
    """What is known of a cell.

    Attributes:
        keeper: cost of the cheapest published system that keeps the promise.
        oracle: of the best plan in hindsight.
        target, stretch: costs to reach.
        prototype: cost of a prototype of `certified`.
    """

    keeper: float
    oracle: float
    target: float
    stretch: float
    prototype: float


LINES = {
    ("extract_ae110k", 0.02): Line(0.943, 0.844, 0.893, 0.893, 0.741),
    ("extract_ae110k", 0.05): Line(0.817, 0.611, 0.736, 0.714, 0.565),
    ("extract_ae110k", 0.10): Line(0.527, 0.222, 0.475, 0.374, 0.345),
    ("extract_ae110k", 0.15): Line(0.332, 0.049, 0.299, 0.191, 0.215),
    ("gsm8k_routellm", 0.02): Line(0.972, 0.951, 0.962, 0.962, 0.985),
    ("gsm8k_routellm", 0.05): Line(0.930, 0.877, 0.904, 0.904, 0.923),
    ("gsm8k_routellm", 0.10): Line(0.857, 0.754, 0.805, 0.805, 0.817),
    ("gsm8k_routellm", 0.15): Line(0.777, 0.631, 0.704, 0.704, 0.700),
    ("match_abtbuy", 0.02): Line(0.891, 0.694, 0.802, 0.792, 0.933),
    ("match_abtbuy", 0.05): Line(0.667, 0.234, 0.600, 0.451, 0.634),
    ("match_abtbuy", 0.10): Line(0.330, 0.174, 0.297, 0.252, 0.351),
    ("match_abtbuy", 0.15): Line(0.237, 0.174, 0.213, 0.206, 0.261),
    ("mmlu", 0.02): Line(0.830, 0.552, 0.747, 0.691, 0.774),
    ("mmlu", 0.05): Line(0.653, 0.420, 0.588, 0.536, 0.617),
    ("mmlu", 0.10): Line(0.505, 0.278, 0.454, 0.391, 0.453),
    ("mmlu", 0.15): Line(0.409, 0.164, 0.368, 0.287, 0.345),
    ("reviews_amazon_local", 0.02): Line(0.780, 0.378, 0.702, 0.579, 0.760),
    ("reviews_amazon_local", 0.05): Line(0.597, 0.288, 0.538, 0.443, 0.556),
    ("reviews_amazon_local", 0.10): Line(0.465, 0.204, 0.419, 0.330, 0.407),
    ("reviews_amazon_local", 0.15): Line(0.402, 0.119, 0.361, 0.232, 0.328),
    ("triviaqa", 0.02): Line(0.972, 0.911, 0.942, 0.942, 0.967),
    ("triviaqa", 0.05): Line(0.906, 0.768, 0.837, 0.837, 0.792),
    ("triviaqa", 0.10): Line(0.700, 0.320, 0.630, 0.510, 0.599),
    ("triviaqa", 0.15): Line(0.522, 0.205, 0.469, 0.363, 0.476),
}


def recording(directory: Path, table: str) -> Recording:
    """A table without the candidates that hardly save."""
    whole = load(directory / f"{table}.parquet", REFERENCES[table])
    limit = DEAREST * whole.mean_costs[whole.reference]
    cheap = [m for m in whole.models[1:] if whole.mean_costs[m] <= limit]
    kept = replace(whole, models=(whole.reference, *cheap))
    return kept.verified({m: kept.costs[m] for m in cheap}) if table in SELF_VERIFIED else kept


def paired(whole: Recording, table: str) -> Recording:
    """The table with the lines' pair only."""
    return replace(whole, models=(whole.reference, PAIRS[table])) if table in PAIRS else whole


@dataclass(frozen=True, slots=True)
class Cell:
    """The runs of one strategy on one table under one requirement.

    Attributes:
        table, delta: which cell it is.
        cost: mean cost relative to the reference; error: its standard error.
        broken: share of the runs that broke the promise; doubt: its standard error.
    """

    table: str
    delta: float
    cost: float
    error: float
    broken: float
    doubt: float

    @staticmethod
    def of(table: str, delta: float, results: list[Result]) -> Cell:
        costs = np.array([r["cost_ratio"] for r in results], dtype=float)
        n = costs.size
        broken = float(np.mean([r["kept_promise"] is not True for r in results]))
        error = float(costs.std(ddof=1)) / sqrt(n) if n > 1 else float("nan")
        doubt = sqrt(broken * (1.0 - broken) / n)
        return Cell(table, delta, float(costs.mean()), error, broken, doubt)

    def __str__(self) -> str:
        error = "" if isnan(self.error) else f"±{self.error:.3f}"
        return f"{self.cost:.3f} {error:>6} {1.0 - self.broken:>6.1%}"


@dataclass(slots=True)
class Tally:
    """The cells of one strategy."""

    cells: list[Cell] = field(default_factory=list)

    def text(self, *, is_ours: bool) -> str:
        """The cells that have a line, against the line."""
        known = [(c, LINES[c.table, c.delta]) for c in self.cells if (c.table, c.delta) in LINES]
        if not known:
            return "no cell with a line"
        n = len(known)
        ratio = np.mean([cell.cost / line.target for cell, line in known])
        at_target = sum(cell.cost <= line.target for cell, line in known)
        at_keeper = sum(cell.cost <= line.keeper for cell, line in known)
        above = sum(cell.cost > WHOLE for cell, _ in known)
        often = sum(cell.broken > 1.0 - GAMMA + 1e-9 for cell, _ in known)
        worst = max(known, key=lambda pair: (pair[0].broken, pair[0].doubt))[0]
        text = (
            f"{ratio:.3f} of the target on average; at or under it in {at_target} of {n} cells, "
            f"at or under the keeper in {at_keeper}, above {WHOLE} in {above}; broken at most "
            f"{worst.broken:.1%} ±{worst.doubt:.1%} ({worst.table} {worst.delta:g}), in {often} "
            f"cells in more than {1.0 - GAMMA:.0%} of the runs"
        )
        if is_ours:
            to_prototype = [cell.cost / line.prototype for cell, line in known]
            beyond = sum(x > 1.02 for x in to_prototype)
            text += (
                f"; {np.mean(to_prototype):.3f} of the prototype on average, more than 2 % "
                f"dearer in {beyond}"
            )
        return text


def wanted(delta: float, strategies: Iterable[str], seeds: range, *, stored: bool) -> list[Case]:
    """The runs of a row of the table."""
    requirement = Requirement(delta, GAMMA)
    cases = []
    for name in strategies:
        in_order = stored and name.startswith(READ_IN_ORDER)
        some = seeds[:1] if in_order else seeds
        cases += [Case(name, requirement, seed, in_order) for seed in some]
    return cases


def row(
    whole: Recording,
    pair: Recording,
    delta: float,
    strategies: list[str],
    seeds: range,
    *,
    stored: bool,
    jobs: int,
) -> Iterator[Result]:
    """All runs of a row of the table."""
    of_pairs = ["bargain"] if "bargain" in strategies else []
    others = [name for name in strategies if name not in of_pairs]
    for answers, names in ((whole, others), (pair, of_pairs)):
        if names:
            yield from replay_cases(answers, wanted(delta, names, seeds, stored=stored), jobs)


def shown(table: str, delta: float, cells: Iterable[Cell], *, is_ours: bool) -> str:
    """A row of the table, with the lines if there are any."""
    text = f"{table:<21} {delta:>5g}" + "".join(f"  {cell!s:>22}" for cell in cells)
    line = LINES.get((table, delta))
    if line is not None:
        known = [line.keeper, line.oracle, line.target, line.stretch]
        known += [line.prototype] if is_ours else []
        text += "    " + "  ".join(f"{x:.3f}" for x in known)
    return text


def write(
    lines: TextIO | None, table: str, order: str, results: Iterable[Result]
) -> Iterator[Result]:
    """Results as they pass, each written as one line of JSON."""
    for result in results:
        if lines is not None:
            lines.write(json.dumps({"table": table, "order": order, **result}) + "\n")
            lines.flush()
        yield result


def numbers(_: click.Context, __: click.Parameter, value: str) -> list[float]:
    return list(dict.fromkeys(float(part) for part in value.split(",")))


def words(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in value.split(",")))


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--strategy", "strategies", callback=words, default="certified,smart-model-mix")
@click.option("--tables", callback=words, default=",".join(REFERENCES))
@click.option("--delta", "deltas", callback=numbers, default="0.02,0.05,0.1,0.15")
@click.option("--seeds", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--first-seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--order", type=click.Choice(["random", "stored"]), default="random")
@click.option("--choose-pairs", is_flag=True, help="bargain chooses its model on labelled rows.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False), help="One JSON object a run.")
def main(
    *,
    directory: Path,
    strategies: list[str],
    tables: list[str],
    deltas: list[float],
    seeds: int,
    first_seed: int,
    order: str,
    choose_pairs: bool,
    jobs: int,
    out: str | None,
) -> None:
    """Cost and kept promises of strategies on recorded answers."""
    is_ours = "certified" in strategies
    head = "".join(f"  {name:>22}" for name in strategies)
    lines_head = "keeper oracle target stretch" + (" prototype" if is_ours else "")
    click.echo(f"{'table':<21} {'delta':>5}{head}   {lines_head}")
    tallies = {name: Tally() for name in strategies}
    chosen = range(first_seed, first_seed + seeds)
    with ExitStack() as stack:
        lines = stack.enter_context(open(out, "w", encoding="utf-8")) if out else None
        for table in tables:
            whole = recording(directory, table)
            pair = whole if choose_pairs else paired(whole, table)
            for delta in deltas:
                runs = row(
                    whole, pair, delta, strategies, chosen, stored=order == "stored", jobs=jobs
                )
                results = list(write(lines, table, order, runs))
                for name, tally in tallies.items():
                    mine = [r for r in results if r["strategy"] == name]
                    tally.cells.append(Cell.of(table, delta, mine))
                cells = [tally.cells[-1] for tally in tallies.values()]
                click.echo(shown(table, delta, cells, is_ours=is_ours))
    click.echo()
    for name, tally in tallies.items():
        click.echo(f"{name}: {tally.text(is_ours=name == 'certified')}")


if __name__ == "__main__":
    main()
