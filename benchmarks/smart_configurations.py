"""Cost on SMART's own three configurations, and on small tables.

    python benchmarks/smart_configurations.py --out configurations.jsonl
    python benchmarks/smart_configurations.py --small

The simulator published with SMART (arXiv 2403.13835) draws each model's agreement with GPT-4
independently for every row. Its conformities (share of answers equal to GPT-4's):

    table      rows     gpt-3.5-turbo-1106   gpt-3.5-turbo-instruct   base models
    imdb        50,000         .94                   .96                   0
    sms_spam     5,574         .94                   .88                   0
    ag_news    127,600         .90                   .94                   0

Costs are relative to GPT-4 ($30 / $60 per million prompt / completion tokens), reconstructed from
list prices ($1 / $2, $1.5 / $2, davinci-002 $2 / $2, babbage-002 $.4 / $.4). The 1106 model costs
1/30 whatever the lengths. The instruct model is known to have cost .049 on imdb and .046 on
ag_news, which fixes the ratio of completion to prompt tokens; the base models emit 16 tokens. That
gives the known costs of the best mixture in hindsight: .524 at delta .02, .049 at .04, .033 at .06
and .030 at .20 on imdb; .678, .356, .033, .031 on sms_spam; .682, .364, .046, .031 on ag_news. The
columns "single" and "mixture" of the output print them, so the reconstruction can be checked.

Each seed draws fresh bits, and a fresh random order for `certified`. SMART reads tables in their
order, which for independent bits is as good as any.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from synthetic import Table, measure, row_digests

from smartsql.policies import Policy
from smartsql.policies.certified import Certified
from smartsql.policies.exact.exact import Exact
from smartsql.policies.smart import Smart
from smartsql.population import Population
from smartsql.solver import cheapest_mixture
from smartsql.types import Requirement

STRATEGIES = ("certified", "certified-blind", "smart-model-mix")
DELTAS = tuple(round(0.02 * step, 2) for step in range(1, 11))
TARGETS = {"imdb": 0.118, "sms_spam": 0.205, "ag_news": 0.160}
SMALL_LIMIT = 1.02


@dataclass(frozen=True)
class Case:
    """A table: rows, tolerance, and each candidate's relative cost and rate of disagreement."""

    name: str
    rows: int
    delta: float
    models: Mapping[str, tuple[float, float]]
    prompt_prices: Mapping[str, float]


def models_of(
    prompt: int, completion: int, turbo: float, instruct: float
) -> dict[str, tuple[float, float]]:
    """Relative cost and rate of disagreement by model, from tokens and conformities."""
    reference = 30 * prompt + 60 * completion
    return {
        "babbage-002": (0.4 * (prompt + 16) / reference, 1.0),
        "gpt-3.5-turbo-1106": ((prompt + 2 * completion) / reference, 1 - turbo),
        "gpt-3.5-turbo-instruct": ((1.5 * prompt + 2 * completion) / reference, 1 - instruct),
        "davinci-002": (2 * (prompt + 16) / reference, 1.0),
    }


PROMPT_PRICES = {
    "reference": 30.0,
    "babbage-002": 0.4,
    "gpt-3.5-turbo-1106": 1.0,
    "gpt-3.5-turbo-instruct": 1.5,
    "davinci-002": 2.0,
}
CONFIGURATIONS = {
    "imdb": (50_000, models_of(300, 9, 0.94, 0.96)),
    "sms_spam": (5_574, models_of(60, 6, 0.94, 0.88)),
    "ag_news": (127_600, models_of(100, 16, 0.90, 0.94)),
}
SMALL = (
    *((50, 0.05, 0.0), (50, 0.10, 0.02), (50, 0.20, 0.05), (100, 0.10, 0.0), (100, 0.10, 0.05)),
    *((200, 0.05, 0.05), (200, 0.10, 0.02), (200, 0.10, 0.10), (500, 0.05, 0.02)),
    *((500, 0.10, 0.05), (500, 0.20, 0.02), (1000, 0.05, 0.05), (1000, 0.10, 0.05)),
    (1000, 0.20, 0.05),
)
"""Rows, delta, and the error rate of the good candidate; a hopeless one stands beside it."""
BAD = tuple((rows, errors) for rows in (50, 100, 200, 500, 1000) for errors in (0.3, 0.6))
"""Rows, and the error rate of the better of two bad candidates, at delta .05."""


def small_cases() -> Iterator[Case]:
    for rows, delta, errors in SMALL:
        yield small_case(f"small err {errors:.2f}", rows, delta, errors)
    for rows, errors in BAD:
        yield small_case(f"bad err {errors:.2f}", rows, 0.05, errors)


def small_case(name: str, rows: int, delta: float, errors: float) -> Case:
    models = {"cheap": (0.033, errors), "hopeless": (0.033, 1.0)}
    return Case(name, rows, delta, models, {"reference": 1.0, "cheap": 0.033, "hopeless": 0.033})


def policy_of(strategy: str, case: Case) -> Policy:
    if strategy == "certified":
        return Certified()
    if strategy == "certified-blind":
        return Exact()
    return Smart("model-mix", case.prompt_prices)


def run_seed(case: Case, seed: int, gamma: float) -> list[dict[str, object]]:
    """One line for each strategy."""
    rng = np.random.default_rng([seed, case.rows])
    wrong = {name: rng.random(case.rows) < rate for name, (_, rate) in case.models.items()}
    table = Table(wrong, {name: cost for name, (cost, _) in case.models.items()})
    weights = np.ones(case.rows, dtype=np.int64)
    lines = []
    for strategy in STRATEGIES:
        if strategy.startswith("certified"):
            population = Population.shuffled(row_digests(case.rows), weights, seed)
        else:
            population = Population.in_order(np.arange(case.rows), weights)
        requirement = Requirement(case.delta, gamma)
        measured = measure(table, policy_of(strategy, case), requirement, population)
        lines.append(
            {
                "case": case.name,
                "rows": case.rows,
                "delta": case.delta,
                "gamma": gamma,
                "seed": seed,
                "strategy": strategy,
                **asdict(measured),
            }
        )
    return lines


def run_case(case: Case, seeds: int, gamma: float) -> list[dict[str, object]]:
    return [line for seed in range(seeds) for line in run_seed(case, seed, gamma)]


def hindsight(case: Case) -> tuple[float, float]:
    """Cost of the cheapest fitting model and of the cheapest mixture, both without an audit."""
    single = min([c for c, e in case.models.values() if e <= case.delta + 1e-9], default=1.0)
    costs, rates = zip(*case.models.values(), strict=True)
    mixture = cheapest_mixture(costs, rates, reference_cost=1.0, budget=case.delta)
    return single, mixture.unit_cost


def column(lines: list[dict[str, object]], strategy: str, key: str) -> np.ndarray:
    return np.array([line[key] for line in lines if line["strategy"] == strategy], dtype=float)


def show(case: Case, lines: list[dict[str, object]]) -> None:
    single, mix = hindsight(case)
    parts = [f"{case.name:15s} {case.rows:6d} {case.delta:4.2f} {single:7.3f} {mix:7.3f}"]
    for strategy in STRATEGIES:
        cost = column(lines, strategy, "cost_ratio")
        broken = int((column(lines, strategy, "kept_promise") == 0).sum())
        parts.append(f"{cost.mean():8.4f} {cost.max():6.3f} {broken:3d}")
    rounds = column(lines, "certified", "rounds")
    pilot = column(lines, "certified", "pilot_rows")
    audited = column(lines, "certified", "audited_rows")
    seconds = column(lines, "certified", "decide_s")
    parts.append(f"{np.median(pilot):6.0f} {np.median(audited):7.0f} {np.median(rounds):5.0f}")
    parts.append(f"{seconds.mean():7.3f}")
    print(" |".join(parts), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="tables of 50 to 1,000 rows")
    parser.add_argument("--tables", nargs="+", default=list(CONFIGURATIONS))
    parser.add_argument("--deltas", type=float, nargs="+", default=DELTAS)
    parser.add_argument("--gamma", type=float, default=0.95)
    parser.add_argument("--seeds", type=int, help="default 20, with --small 200")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON lines, one for each run")
    arguments = parser.parse_args()
    seeds = arguments.seeds or (200 if arguments.small else 20)
    cases = (
        list(small_cases())
        if arguments.small
        else [
            Case(name, CONFIGURATIONS[name][0], delta, CONFIGURATIONS[name][1], PROMPT_PRICES)
            for name in arguments.tables
            for delta in arguments.deltas
        ]
    )
    print("cost relative to the reference on every row; broken = seeds that broke the promise")
    print(
        "table             rows delta single mixture | certified    max broken |    blind    max "
        "broken |model-mix    max broken | pilot audited rounds | s/run"
    )
    everything: list[dict[str, object]] = []
    with ProcessPoolExecutor(arguments.jobs) as pool:
        work = [len(cases) * [seeds], len(cases) * [arguments.gamma]]
        for case, lines in zip(cases, pool.map(run_case, cases, *work), strict=True):
            show(case, lines)
            everything += lines
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(line) + "\n" for line in everything))
    return judge_small(everything) if arguments.small else judge(everything)


def judge(lines: list[dict[str, object]]) -> int:
    """Mean cost by table against its target; 1 if one is missed."""
    missed = False
    for name in dict.fromkeys(str(line["case"]) for line in lines):
        mine = [line for line in lines if line["case"] == name]
        means = {s: float(column(mine, s, "cost_ratio").mean()) for s in STRATEGIES}
        rounds = float(np.median(column(mine, "certified", "rounds")))
        missed |= means["certified"] > TARGETS[name]
        print(
            f"{name}: mean cost certified {means['certified']:.4f} (target {TARGETS[name]:.3f}), "
            f"certified-blind {means['certified-blind']:.4f}, smart-model-mix "
            f"{means['smart-model-mix']:.4f}; median round trips {rounds:.0f}"
        )
    return int(missed)


def judge_small(lines: list[dict[str, object]]) -> int:
    """Dearest run of all small tables; 1 if it exceeds the limit."""
    dearest = float(column(lines, "certified", "cost_ratio").max())
    print(f"dearest run of certified: {dearest:.4f} of the reference (limit {SMALL_LIMIT})")
    return int(dearest > SMALL_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
