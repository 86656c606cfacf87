"""Whether what a statement costs lies where its preview said, over runs of recorded answers.

    python benchmarks/preview_bounds.py DIRECTORY [--delta 0.02,0.05,0.1,0.15] [--seeds 20]

DIRECTORY and tables as for `recorded.py`. A preview knows what is known before the first call: the
number of rows, how many may differ, and the mean cost of each model's calls. For each cell stand
what it said (at least, expected, at most) and what runs of `certified` cost, as shares of asking
the reference about every row; and how many runs lie between the bounds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from recorded import GAMMA, REFERENCES, numbers, recording

from smartsql.preview.reckoning import reckon
from smartsql.replay.recording import Recording
from smartsql.replay.runs import Case, replay_cases
from smartsql.types import Requirement


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a preview says, as shares of asking the reference alone."""

    low: float
    expected: float
    high: float

    @staticmethod
    def of(answers: Recording, requirement: Requirement) -> Bounds:
        problem = answers.problem(requirement, 0)
        prices = {model.name: model.expected_cost for model in problem.callable}
        whole = answers.reference_spend_usd
        return Bounds(*(case.cost(prices) / whole for case in reckon(problem).cases))

    def holds(self, share: float) -> bool:
        return self.low <= share <= self.high


def costs(
    answers: Recording, requirement: Requirement, seeds: Iterable[int], jobs: int
) -> list[float]:
    """What runs cost, as shares of asking the reference alone."""
    cases = [Case("certified", requirement, seed) for seed in seeds]
    return [result["cost_ratio"] for result in replay_cases(answers, cases, jobs)]


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--tables", default=",".join(REFERENCES), show_default=True)
@click.option("--delta", "deltas", callback=numbers, default="0.02,0.05,0.1,0.15")
@click.option("--seeds", default=20, show_default=True)
@click.option("--first-seed", default=20_000, show_default=True)
@click.option("--jobs", default=1, show_default=True)
def main(
    directory: Path, tables: str, deltas: list[float], seeds: int, first_seed: int, jobs: int
) -> None:
    inside, highest, n = 0, 0.0, 0
    print(f"{'table':<21} {'delta':>5}    low expected   high |    min   mean    max  inside")
    for table in tables.split(","):
        answers = recording(directory, table)
        for delta in deltas:
            requirement = Requirement(delta, GAMMA)
            said = Bounds.of(answers, requirement)
            spent = np.array(
                costs(answers, requirement, range(first_seed, first_seed + seeds), jobs)
            )
            held = sum(said.holds(share) for share in spent.tolist())
            inside, n, highest = inside + held, n + seeds, max(highest, said.high)
            print(
                f"{table:<21} {delta:>5g} {said.low:>6.3f} {said.expected:>8.3f} "
                f"{said.high:>6.3f} | {spent.min():>6.3f} {spent.mean():>6.3f} "
                f"{spent.max():>6.3f}  {held:>3} of {seeds}",
                flush=True,
            )
    print(
        f"{inside / n:.1%} of {n} runs lie between the bounds; the highest bound is {highest:.3f}"
    )


if __name__ == "__main__":
    main()
