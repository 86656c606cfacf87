"""Strategies over recorded answers: what each would have cost, and whether it kept its promise.

A replay runs the real policies through the real executor; only the models are a recording. One
seed is one random order of the rows. Everything but `decide_s` is a function of the recording,
the strategy, the requirement and the seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from smartsql.errors import ParameterError
from smartsql.executor import run
from smartsql.replay.ibc import Benefit, benefit
from smartsql.replay.parquet import load
from smartsql.replay.recording import RecordedSource, Recording, total
from smartsql.replay.strategies import strategy
from smartsql.types import Requirement

Result = dict[str, object]
"""One run, by field."""


def replay(
    path: str | Path,
    reference: str,
    *,
    models: Sequence[str] | None = None,
    dataset: str | None = None,
    deltas: Sequence[float] = (0.1,),
    gamma: float = 0.95,
    strategies: Sequence[str] = ("certified",),
    seeds: int = 20,
    first_seed: int = 0,
    jobs: int = 1,
) -> Iterator[Result]:
    """Run strategies over a file of recorded answers.

    Args:
        path, reference, models, dataset: see `smartsql.replay.parquet.load`.
        deltas, gamma: requirements; one run for each delta. One that is repeated runs once.
        strategies: names that `strategy` knows; one that is repeated runs once.
        seeds, first_seed: number of random orders, and the first one's seed.
        jobs: processes that share the runs; the results and their order do not depend on it.

    Returns:
        One result for each strategy, delta and seed, in this order, as `measure` returns it.

    Raises:
        RecordingError, ParameterError: before the first run.
    """
    recording = load(path, reference, models=models, dataset=dataset)
    return replay_recording(
        recording,
        deltas=deltas,
        gamma=gamma,
        strategies=strategies,
        seeds=seeds,
        first_seed=first_seed,
        jobs=jobs,
    )


def replay_recording(
    recording: Recording,
    *,
    deltas: Sequence[float],
    gamma: float,
    strategies: Sequence[str],
    seeds: int,
    first_seed: int = 0,
    jobs: int = 1,
) -> Iterator[Result]:
    """Run strategies over a recording; arguments and results as for `replay`."""
    cases = listed(
        recording,
        deltas=deltas,
        gamma=gamma,
        strategies=strategies,
        seeds=seeds,
        first_seed=first_seed,
    )
    if jobs < 1:
        raise ParameterError(f"jobs is {jobs}; it must be at least 1.")
    return replay_cases(recording, cases, jobs)


@dataclass(frozen=True, slots=True)
class Case:
    """One strategy under one requirement in one order of the rows."""

    strategy: str
    requirement: Requirement
    seed: int
    stored_order: bool = False


def listed(
    recording: Recording,
    *,
    deltas: Sequence[float],
    gamma: float,
    strategies: Sequence[str],
    seeds: int,
    first_seed: int = 0,
) -> list[Case]:
    """The runs that arguments of `replay` ask for, in order.

    Raises:
        ParameterError: an argument that no run can have.
    """
    if seeds < 1:
        raise ParameterError(f"seeds is {seeds}; it must be at least 1.")
    if first_seed < 0:
        raise ParameterError(f"first_seed is {first_seed}; it must be at least 0.")
    if recording.reference_spend_usd <= 0.0:
        raise ParameterError(
            f"reference model {recording.reference!r} costs nothing in the recording, so no cost "
            f"ratio exists. Give its lines a cost_usd above 0 (seconds will do)."
        )
    names = list(dict.fromkeys(strategies))
    for name in names:
        strategy(name, recording)
    requirements = [Requirement(delta, gamma) for delta in dict.fromkeys(deltas)]
    return [
        Case(name, requirement, seed)
        for name in names
        for requirement in requirements
        for seed in range(first_seed, first_seed + seeds)
    ]


@dataclass(frozen=True, slots=True)
class Measured:
    """One run.

    Attributes:
        result: its fields, as they are written.
        benefit: what it added to its small model, None if it asked no candidate.
    """

    result: Result
    benefit: Benefit | None


def measure(recording: Recording, case: Case) -> Result:
    """Replay one case.

    Returns:
        Fields in the order in which they are written: `strategy, delta, gamma, seed, rows,
        spend_usd, reference_spend_usd, cost_ratio, agreement, kept_promise, reference_calls,
        calls, pilot_rows, audited_rows, bound, decide_s`. Every call of a (model, row) is
        charged once. Agreement is over rows, those answered by the reference agree.
    """
    return measure_benefit(recording, case).result


def measure_benefit(recording: Recording, case: Case) -> Measured:
    """Replay one case; the result as for `measure`, and its incremental benefit."""
    policy = strategy(case.strategy, recording)
    requirement = case.requirement
    problem = recording.problem(requirement, case.seed, stored_order=case.stored_order)
    start = perf_counter()
    outcome = run(policy, problem, RecordedSource(recording))
    decide_s = perf_counter() - start
    differing = 0
    for position, model in enumerate(problem.candidates, start=1):
        wrong = (outcome.answered_by == position) & ~recording.agrees(model.name)
        differing += int(recording.weights[wrong].sum())
    profile = outcome.profile
    costs = np.concatenate([profile.costs(model.name) for model in problem.callable])
    spend = total(costs[costs > 0.0])
    reference_spend = recording.reference_spend_usd
    calls = {model.name: profile.n_asked(model.name) for model in problem.callable}
    result: Result = {
        "strategy": policy.name,
        "delta": float(requirement.delta),
        "gamma": float(requirement.gamma),
        "seed": case.seed,
        "rows": recording.n_rows,
        "spend_usd": spend,
        "reference_spend_usd": reference_spend,
        "cost_ratio": spend / reference_spend,
        "agreement": 1.0 - differing / recording.n_rows,
        "kept_promise": differing <= problem.tolerated,
        "reference_calls": calls[problem.reference.name],
        "calls": calls,
        "pilot_rows": int(outcome.plan.pilot_rows),
        "audited_rows": int(outcome.plan.audited_rows),
        "bound": float(outcome.plan.bound),
        "decide_s": decide_s,
    }
    return Measured(result, benefit(recording, outcome, spend / reference_spend))


def replay_cases(recording: Recording, cases: Sequence[Case], jobs: int = 1) -> Iterator[Result]:
    """Results in the order of the cases, whatever the number of processes."""
    return (each.result for each in measured_cases(recording, cases, jobs))


def measured_cases(
    recording: Recording, cases: Sequence[Case], jobs: int = 1
) -> Iterator[Measured]:
    """Runs in the order of the cases, whatever the number of processes."""
    if jobs == 1:
        yield from (measure_benefit(recording, case) for case in cases)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # spawned, not forked: readers of Parquet have threads, which a fork would leave behind
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=_share, initargs=(recording,)
    ) as pool:
        chunk = max(1, min(16, len(cases) // (4 * jobs)))
        yield from pool.map(_measure_shared, cases, chunksize=chunk)


_shared: list[Recording] = []


def _share(recording: Recording) -> None:
    """Keep the recording in a worker process."""
    _shared[:] = [recording]


def _measure_shared(case: Case) -> Measured:
    """`measure_benefit` in a worker process."""
    return measure_benefit(_shared[0], case)


def summary(results: Iterable[Result]) -> str:
    """A table of mean cost ratio and kept promises by strategy and delta, in order of appearance.

    Says nothing about time, so that it depends on the seeds alone.
    """
    groups: dict[tuple[str, float], list[Result]] = {}
    for result in results:
        groups.setdefault((str(result["strategy"]), _number(result, "delta")), []).append(result)
    width = max([len("strategy"), *(len(name) for name, _ in groups)])
    header = f"{'strategy':<{width}}  {'delta':>6}  {'cost ratio':>10}  {'promise kept':>12}"
    lines = [f"{header}  {'runs':>5}"]
    for (name, delta), group in groups.items():
        cost = total(np.array([_number(r, "cost_ratio") for r in group])) / len(group)
        kept = sum(r["kept_promise"] is True for r in group) / len(group)
        lines.append(f"{name:<{width}}  {delta:>6g}  {cost:>10.4f}  {kept:>12.3f}  {len(group):>5}")
    return "\n".join(lines)


def _number(result: Result, name: str) -> float:
    value = result[name]
    assert isinstance(value, (int, float))
    return float(value)
