"""How often the promise is broken on the tables that are hardest for it.

    python benchmarks/guarantee.py --out guarantee.jsonl

Each cell fixes the number D of rows a candidate gets wrong, just above the tolerated d, and runs
the real policy through the real executor on many random orders. The order is the engine's own,
`Population.shuffled` over digests of the row numbers. D is fixed, so a cell is the probability
that the promise speaks of; at the worst D the policy is expected to come close to 1 - gamma.

"one" is one candidate with D errors beside a hopeless one; "four" is four candidates with D
errors each, at rows of their own. Sorted puts the errors of a candidate at the start of the
table, clustered in five runs, random anywhere. The exit code is 1 if any cell breaks the promise
more often than 1 - gamma plus three standard errors.

`--routed` runs the tables of `routed_tables.py` instead, on which confidences mislead: with the
policy as it is ("certified") and with one that never takes the plain audit ("routed").
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from time import perf_counter

import numpy as np
from routed_tables import CONFIDENCES, POLICIES, broken_and_cost, table
from synthetic import Measured, Table, measure, row_digests

from smartsql.policies.certified import Certified
from smartsql.population import Population
from smartsql.types import BoolArray, Requirement

SIZES = (50, 200, 2000, 20000)
ROUTED_SIZES = (500, 2000)
ROUTED_ERRORS = ("d+1", "d+4", "1.3d", "1.5d", "2d")
ERRORS = ("d+1", "d+2", "1.05d", "1.15d", "1.5d")
PLACEMENTS = ("sorted", "clustered", "random")
CANDIDATES = ("one", "four")
COST = 0.033


@dataclass(frozen=True)
class Cell:
    """One worst-case table."""

    rows: int
    delta: float
    errors: str
    placement: str
    candidates: str

    def wrong_rows(self, tolerated: int) -> int:
        if self.errors.startswith("d+"):
            return tolerated + int(self.errors[2:])
        return max(tolerated + 1, round(float(self.errors[:-1]) * tolerated))


def errors_at(cell: Cell, count: int, rng: np.random.Generator) -> BoolArray:
    """Where one candidate errs; exactly `count` rows."""
    wrong = np.zeros(cell.rows, dtype=np.bool_)
    if cell.placement == "random":
        wrong[rng.choice(cell.rows, count, replace=False)] = True
    elif cell.placement == "sorted":
        wrong[:count] = True
    else:
        runs, start = min(5, count), int(rng.integers(cell.rows))
        for run in range(runs):
            length = count // runs + (run < count % runs)
            wrong[(start + run * cell.rows // runs + np.arange(length)) % cell.rows] = True
    return wrong


def draw(cell: Cell, requirement: Requirement, seed: int) -> Table:
    """The table of one seed."""
    rng = np.random.default_rng([seed, cell.rows])
    count = min(cell.rows, cell.wrong_rows(requirement.tolerated(cell.rows)))
    names = ["a"] if cell.candidates == "one" else ["a", "b", "c", "d"]
    wrong = {name: errors_at(cell, count, rng) for name in names}
    if cell.candidates == "one":
        wrong["hopeless"] = np.ones(cell.rows, dtype=np.bool_)
    costs = {name: COST * (1 + 0.1 * position) for position, name in enumerate(wrong)}
    return Table(wrong, costs)


def run_cell(cell: Cell, gamma: float, first_seed: int, seeds: int) -> dict[str, object]:
    """All seeds of a cell."""
    requirement = Requirement(cell.delta, gamma)
    digests, weights = row_digests(cell.rows), np.ones(cell.rows, dtype=np.int64)
    policy = Certified()
    runs: list[Measured] = []
    for seed in range(first_seed, first_seed + seeds):
        population = Population.shuffled(digests, weights, seed)
        runs.append(measure(draw(cell, requirement, seed), policy, requirement, population))
    broken = sum(not run.kept_promise for run in runs) / seeds
    limit = 1 - gamma
    return {
        **asdict(cell),
        "gamma": gamma,
        "tolerated": requirement.tolerated(cell.rows),
        "wrong": cell.wrong_rows(requirement.tolerated(cell.rows)),
        "seeds": seeds,
        "broken": broken,
        "standard_error": math.sqrt(broken * (1 - broken) / seeds),
        # under the promise itself, so that a cell without any violation has a width too
        "held": broken <= limit + 3 * math.sqrt(limit * (1 - limit) / seeds),
        "mean_cost": sum(run.cost_ratio for run in runs) / seeds,
        "max_cost": max(run.cost_ratio for run in runs),
        "median_rounds": float(np.median([run.rounds for run in runs])),
        "mean_decide_s": sum(run.decide_s for run in runs) / seeds,
    }


def run_routed(cell: Cell, gamma: float, first_seed: int, seeds: int) -> dict[str, object]:
    """All seeds of a cell with confidences; `candidates` names the policy."""
    requirement = Requirement(cell.delta, gamma)
    wrong = cell.wrong_rows(requirement.tolerated(cell.rows))
    runs = []
    started = perf_counter()
    for seed in range(first_seed, first_seed + seeds):
        data = table(cell.placement, cell.rows, wrong, np.random.default_rng([seed, cell.rows]))
        runs.append(broken_and_cost(data, cell.candidates, requirement, seed))
    elapsed = perf_counter() - started
    failed, costs, rounds = (np.array(part) for part in zip(*runs, strict=True))
    broken, limit = float(failed.mean()), 1 - gamma
    return {
        **asdict(cell),
        "gamma": gamma,
        "wrong": wrong,
        "seeds": seeds,
        "broken": broken,
        "standard_error": math.sqrt(broken * (1 - broken) / seeds),
        "held": broken <= limit + 3 * math.sqrt(limit * (1 - limit) / seeds),
        "mean_cost": float(costs.mean()),
        "max_cost": float(costs.max()),
        "median_rounds": float(np.median(rounds)),
        "mean_decide_s": elapsed / seeds,
    }


def cells(arguments: argparse.Namespace) -> Iterator[Cell]:
    if arguments.routed:
        rows_of, errors_of = arguments.rows or ROUTED_SIZES, arguments.errors or ROUTED_ERRORS
        kinds, placements = arguments.policies, arguments.placements or CONFIDENCES
    else:
        rows_of, errors_of = arguments.rows or SIZES, arguments.errors or ERRORS
        kinds, placements = CANDIDATES, arguments.placements or PLACEMENTS
    for rows, delta, candidates, errors, placement in product(
        rows_of, arguments.delta, kinds, errors_of, placements
    ):
        yield Cell(rows, delta, errors, placement, candidates)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+")
    parser.add_argument("--delta", type=float, nargs="+", default=[0.1])
    parser.add_argument("--errors", nargs="+", help="such as d+1 or 1.5d")
    parser.add_argument("--placements", nargs="+", choices=PLACEMENTS + CONFIDENCES)
    parser.add_argument("--routed", action="store_true", help="tables on which confidences mislead")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=tuple(POLICIES))
    parser.add_argument("--gamma", type=float, default=0.95)
    parser.add_argument("--seeds", type=int, default=1000, help="random orders for each cell")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON lines, one for each cell")
    arguments = parser.parse_args()
    chosen = list(cells(arguments))
    held = True
    print("  rows delta candidates placement errors  broken (se)     mean cost  max  rounds  s/run")
    with ProcessPoolExecutor(arguments.jobs) as pool:
        results = pool.map(
            run_routed if arguments.routed else run_cell,
            chosen,
            [arguments.gamma] * len(chosen),
            [arguments.first_seed] * len(chosen),
            [arguments.seeds] * len(chosen),
        )
        lines = []
        for cell, result in zip(chosen, results, strict=True):
            lines.append(json.dumps(result))
            held &= bool(result["held"])
            print(
                f"{cell.rows:6d} {cell.delta:5.2f} {cell.candidates:10s} {cell.placement:9s} "
                f"{cell.errors:6s} {result['broken']:.4f} ({result['standard_error']:.4f}) "
                f"{'' if result['held'] else 'BROKEN '}{result['mean_cost']:8.3f} "
                f"{result['max_cost']:6.3f} {result['median_rounds']:5.0f} "
                f"{result['mean_decide_s']:8.4f}",
                flush=True,
            )
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")
    limit = 1 - arguments.gamma
    print(f"promise: broken in at most {limit:.3f} of the orders (+ 3 standard errors)")
    print("held in every cell" if held else "NOT held in every cell")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
