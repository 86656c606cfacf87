"""Tables on which evidence misleads: what routing has to withstand.

One candidate is wrong in a fixed number of rows, and its confidences, or the words of its answers,
say something useless, false or half true about where. Policies, executor and random order are the
real ones.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from smartsql.executor import run
from smartsql.features import ANSWER_NAMES
from smartsql.policies.certified import Certified
from smartsql.policies.routing.tuning import RoutingTuning
from smartsql.replay.recording import RecordedSource, Recording
from smartsql.types import BoolArray, FloatArray, IntArray, Requirement

CONFIDENCES = (
    "confident",
    "inverted",
    "decoys",
    "telling",
    "none",
    "constant",
    "unknown",
    "sorted",
    "duplicates",
    "words",
)
POLICIES = {
    "routed": Certified(RoutingTuning(exact=0.0, exact_unguided=0.0)),
    "certified": Certified(),
}
HEAVY = 9
"""Rows of every thirteenth prompt in the table with duplicates."""
KINDS = 4
OPEN_KINDS = 40
"""Different answers, where they are labels and where they are words."""


def weights_of(kind: str, rows: int) -> IntArray:
    """Rows of each prompt; they add up to `rows` or a little less."""
    if kind != "duplicates":
        return np.ones(rows, dtype=np.int64)
    prompts = rows * 13 // (12 + HEAVY)
    return np.where(np.arange(prompts) % 13 == 0, HEAVY, 1).astype(np.int64)


def table(kind: str, rows: int, wrong_rows: int, rng: np.random.Generator) -> Recording:
    """A table whose candidate is wrong in `wrong_rows` rows (8 more at most with duplicates)."""
    weights = weights_of(kind, rows)
    n = weights.size
    confidences: FloatArray = rng.permutation(n) / n
    wrong = np.zeros(n, dtype=np.bool_)
    wrong[_placed(kind, confidences, weights, wrong_rows, rng)] = True
    if kind == "constant":
        confidences = np.full(n, 0.5)
    if kind == "unknown":
        confidences = np.where(rng.random(n) < 0.4, np.nan, confidences)
    kinds = OPEN_KINDS if kind == "words" else KINDS
    labels = rng.integers(0, kinds, n)
    silent = kind in ("none", "sorted", "duplicates", "words")
    data = Recording.of(
        {"large": labels, "small": np.where(wrong, (labels + 1) % kinds, labels)},
        {"large": 1.0, "small": 0.02},
        confidences={} if silent else {"small": confidences},
        weights=weights,
    )
    if kind != "words":
        return data
    return replace(data, figures={"small": _misleading(confidences, rng)})


def _misleading(sure: FloatArray, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Figures about answers: one tells as much as a confidence would, the others nothing."""
    figures = rng.integers(0, 256, (sure.size, len(ANSWER_NAMES)))
    figures[:, -1] = 255.0 * sure
    return figures.astype(np.uint8)


def _placed(
    kind: str, confidences: FloatArray, weights: IntArray, wrong: int, rng: np.random.Generator
) -> IntArray:
    """Prompts that are wrong."""
    surest, n = np.argsort(-confidences), confidences.size
    half = wrong // 2
    if kind == "confident":
        placed = surest[:wrong]
    elif kind == "inverted":
        # mostly among the surest, where nothing but labels tells
        chance = np.exp(-6.0 * np.argsort(surest) / n)
        placed = rng.choice(n, wrong, replace=False, p=chance / chance.sum())
    elif kind in ("decoys", "words"):
        # half where one learns to look, half where one learns not to
        placed = np.concatenate([surest[n - half :], surest[: wrong - half]])
    elif kind == "telling":
        # half where confidence is low, the others hidden anywhere
        hidden = rng.choice(surest[: n - half], wrong - half, replace=False)
        placed = np.concatenate([surest[n - half :], hidden])
    elif kind == "sorted":
        placed = np.arange(wrong)
    elif kind == "duplicates":
        heavy = rng.permutation(np.flatnonzero(weights == HEAVY))[: max(1, half // HEAVY)]
        light = rng.permutation(np.flatnonzero(weights == 1))
        placed = np.concatenate([heavy, light[: max(0, wrong - HEAVY * heavy.size)]])
    else:
        placed = rng.choice(n, wrong, replace=False)
    return placed


def broken_and_cost(
    data: Recording, policy: str, requirement: Requirement, seed: int
) -> tuple[bool, float, int]:
    """Whether a run breaks the promise, its cost over the reference's, and its rounds."""
    problem = data.problem(requirement, seed)
    outcome = run(POLICIES[policy], problem, RecordedSource(data))
    mine: BoolArray = outcome.answered_by == 1
    wrong = int(data.weights[mine & ~data.agrees("small")].sum())
    spend = sum(float(outcome.profile.costs(m.name).sum()) for m in problem.models)
    return wrong > problem.tolerated, spend / problem.population.n_prompts, outcome.rounds
