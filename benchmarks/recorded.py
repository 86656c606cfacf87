"""Strategies on six tables of recorded answers, beside the lines that other systems set.

    python benchmarks/recorded.py DIRECTORY [--strategy certified,smart-model-mix] [--seeds 50]

DIRECTORY holds the tables as Parquet files (`smartsql replay --help` has the columns). Costs are
shares of asking the reference about every row, every call charged; candidates dearer than 0.98 of
the reference are left out, as in the lines. `--order stored` gives the strategies that read a table
in its order the order of the file, where nothing protects them from sorted rows. The confidences of
triviaqa come from a second call to the same model, which the recorded costs leave out: it is charged
here as much as the first one, whenever a strategy wants to see the confidence.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from math import sqrt
from pathlib import Path

import click
import numpy as np

from smartsql.recorded import Recording
from smartsql.recorded_parquet import load
from smartsql.replay import Case, Result, replay_cases
from smartsql.types import Requirement

GAMMA = 0.95
DEAREST = 0.98
"""Share of the reference's mean cost above which a candidate is left out."""

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

LINES = {
    ("extract_ae110k", 0.02): (0.943, 0.844, 0.893, 0.893),
    ("extract_ae110k", 0.05): (0.817, 0.611, 0.736, 0.714),
    ("extract_ae110k", 0.10): (0.527, 0.222, 0.475, 0.374),
    ("extract_ae110k", 0.15): (0.332, 0.049, 0.299, 0.191),
    ("gsm8k_routellm", 0.02): (0.972, 0.951, 0.962, 0.962),
    ("gsm8k_routellm", 0.05): (0.930, 0.877, 0.904, 0.904),
    ("gsm8k_routellm", 0.10): (0.857, 0.754, 0.805, 0.805),
    ("gsm8k_routellm", 0.15): (0.777, 0.631, 0.704, 0.704),
    ("match_abtbuy", 0.02): (0.891, 0.694, 0.802, 0.792),
    ("match_abtbuy", 0.05): (0.667, 0.234, 0.600, 0.451),
    ("match_abtbuy", 0.10): (0.330, 0.174, 0.297, 0.252),
    ("match_abtbuy", 0.15): (0.237, 0.174, 0.213, 0.206),
    ("mmlu", 0.02): (0.830, 0.552, 0.747, 0.691),
    ("mmlu", 0.05): (0.653, 0.420, 0.588, 0.536),
    ("mmlu", 0.10): (0.505, 0.278, 0.454, 0.391),
    ("mmlu", 0.15): (0.409, 0.164, 0.368, 0.287),
    ("reviews_amazon_local", 0.02): (0.780, 0.378, 0.702, 0.579),
    ("reviews_amazon_local", 0.05): (0.597, 0.288, 0.538, 0.443),
    ("reviews_amazon_local", 0.10): (0.465, 0.204, 0.419, 0.330),
    ("reviews_amazon_local", 0.15): (0.402, 0.119, 0.361, 0.232),
    ("triviaqa", 0.02): (0.972, 0.911, 0.942, 0.942),
    ("triviaqa", 0.05): (0.906, 0.768, 0.837, 0.837),
    ("triviaqa", 0.10): (0.700, 0.320, 0.630, 0.510),
    ("triviaqa", 0.15): (0.522, 0.205, 0.469, 0.363),
}
"""Cheapest published system that keeps the promise, best plan in hindsight, target, stretch."""


def recording(directory: Path, table: str) -> Recording:
    """A table without the candidates that hardly save."""
    whole = load(directory / f"{table}.parquet", REFERENCES[table])
    limit = DEAREST * whole.mean_costs[whole.reference]
    cheap = [m for m in whole.models[1:] if whole.mean_costs[m] <= limit]
    kept = replace(whole, models=(whole.reference, *cheap))
    return kept.verified({m: kept.costs[m] for m in cheap}) if table in SELF_VERIFIED else kept


def cases(deltas: list[float], strategies: list[str], seeds: int, order: str) -> list[Case]:
    return [
        Case(name, Requirement(delta, GAMMA), seed, order == "stored" and name.startswith("smart-"))
        for delta in deltas
        for name in strategies
        for seed in range(seeds)
    ]


def show(table: str, strategies: list[str], deltas: list[float], results: list[Result]) -> None:
    for delta in deltas:
        shown = ""
        for name in strategies:
            mine = [r for r in results if (r["strategy"], r["delta"]) == (name, delta)]
            shown += f"  {cell(mine):>22}"
        known = "  ".join(f"{x:.3f}" for x in LINES.get((table, delta), ()))
        click.echo(f"{table:<21} {delta:>5g}{shown}    {known}")


def cell(results: list[Result]) -> str:
    """Mean cost ratio, its standard error, and the share of runs that kept the promise."""
    costs = np.array([r["cost_ratio"] for r in results], dtype=float)
    error = costs.std(ddof=1) / sqrt(costs.size) if costs.size > 1 else float("nan")
    kept = np.mean([r["kept_promise"] is True for r in results])
    return f"{costs.mean():.3f} ±{error:.3f} {kept:>6.1%}"


def numbers(_: click.Context, __: click.Parameter, value: str) -> list[float]:
    return [float(part) for part in value.split(",")]


def words(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    return value.split(",")


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--strategy", "strategies", callback=words, default="certified,smart-model-mix")
@click.option("--tables", callback=words, default=",".join(REFERENCES))
@click.option("--delta", "deltas", callback=numbers, default="0.02,0.05,0.1,0.15")
@click.option("--seeds", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--order", type=click.Choice(["random", "stored"]), default="random")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False), help="One JSON object a run.")
def main(
    *,
    directory: Path,
    strategies: list[str],
    tables: list[str],
    deltas: list[float],
    seeds: int,
    order: str,
    jobs: int,
    out: str | None,
) -> None:
    """Cost and kept promises of strategies on recorded answers."""
    head = "".join(f"  {name:>22}" for name in strategies)
    click.echo(f"{'table':<21} {'delta':>5}{head}   keeper oracle target stretch")
    with ExitStack() as stack:
        lines = stack.enter_context(open(out, "w", encoding="utf-8")) if out else None
        for table in tables:
            wanted = cases(deltas, strategies, seeds, order)
            results = list(replay_cases(recording(directory, table), wanted, jobs))
            if lines is not None:
                for result in results:
                    lines.write(json.dumps({"table": table, "order": order, **result}) + "\n")
            show(table, strategies, deltas, results)


if __name__ == "__main__":
    main()
