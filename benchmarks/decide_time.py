"""How long `certified` decides, and in how many rounds: synthetic recordings that answer at once.

    python benchmarks/decide_time.py --rows 2000 1000000

Every model is an array: what is timed is pilot, choice, evidence, predictions, plans and bets.
All candidates but two are better than chance and carry confidences that tell some of their errors.
"""

from __future__ import annotations

import argparse
import json
import resource
from time import perf_counter

import numpy as np

from smartsql.executor import run
from smartsql.policies.certified import Certified
from smartsql.replay.recording import RecordedSource, Recording
from smartsql.types import Requirement


def recording(rows: int, models: int, seed: int) -> Recording:
    """One reference and `models - 1` candidates on rows with ten labels."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 10, rows, dtype=np.int32)
    codes, costs, confidences = {"reference": truth}, {"reference": 1.0}, {}
    hard = rng.random(rows)
    for k in range(models - 1):
        rate = np.clip((0.05 + 0.5 * hard**2) * (2.0 - k / models), 0.0, 0.95)
        wrong = rng.random(rows) < rate
        name = f"model{k}"
        codes[name] = np.where(wrong, (truth + 1 + k) % 10, truth).astype(np.int32)
        costs[name] = 0.01 * 1.5**k
        confidences[name] = np.clip(1.0 - rate + 0.2 * rng.standard_normal(rows), 0.0, 1.0)
    return Recording.of(codes, costs, confidences=confidences)


def measured(rows: int, models: int, delta: float, seed: int) -> dict[str, object]:
    """One run."""
    data = recording(rows, models, seed)
    problem = data.problem(Requirement(delta, 0.95), seed)
    started = perf_counter()
    outcome = run(Certified(), problem, RecordedSource(data))
    elapsed = perf_counter() - started
    spend = sum(float(outcome.profile.costs(m.name).sum()) for m in problem.models)
    return {
        "rows": rows,
        "models": models,
        "delta": delta,
        "seconds": round(elapsed, 3),
        "rounds": outcome.rounds,
        "procedure": outcome.plan.certificate["procedure"],
        "cost_ratio": round(spend / rows, 4),
        "certificate_kb": round(len(json.dumps(outcome.plan.certificate)) / 1e3, 1),
        # of the process so far; kilobytes on Linux
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 1_000_000])
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--delta", type=float, nargs="+", default=[0.05, 0.1])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for rows in arguments.rows:
        for delta in arguments.delta:
            print(json.dumps(measured(rows, arguments.models, delta, arguments.seed)), flush=True)


if __name__ == "__main__":
    main()
