"""Different rows, different candidates: which group of rows takes which course of action.

A group is a cell of rows that a first candidate has answered with about the same risk. A course
is to accept that answer, to ask a second candidate and take its answer, or to leave the row to
the reference. HiGHS picks one course for each group such that calls and repairs cost the least
while the errors expected to be left are within a budget. Who answers which row is fixed then,
before the first draw of the audit: what is tested are the errors of the plan's answers, whoever
gave them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartsql.policies.routing import predictor
from smartsql.policies.routing.evidence import Evidence, evidence, ranks, side_by_side
from smartsql.profile import Profile
from smartsql.solver import assign
from smartsql.types import FAILED, BoolArray, FloatArray, IntArray

PLANNED = "the plan's answer"
"""Name under which the answers of a plan are looked up."""
ACCEPT, ASK_SECOND, REFERENCE = 0, 1, 2
COURSES = ("accept", "ask second", "reference")
CELLS = 20
"""Groups into which the rows are cut by their risk."""
_PRIOR = np.array([-1.5, 0.5])
_PRECISION = np.array([0.5, 4.0])


def courses_for(
    first: FloatArray,
    second: FloatArray,
    rows: FloatArray,
    price: float,
    budget: float,
    *,
    whole: bool = True,
) -> IntArray:
    """The course of each group.

    Args:
        first: expected error rate of the first candidate in each group; shape (groups,).
        second: that of the second one; same shape.
        rows: rows of each group; same shape.
        price: cost of a call of the second candidate, in calls of the reference.
        budget: errors that may be left.
        whole: each group takes one course; else the shares are solved for, which is quicker, and
            each group takes the course of its largest share.

    Returns:
        ACCEPT, ASK_SECOND or REFERENCE; ACCEPT everywhere where no assignment is found.
    """
    nothing = np.zeros_like(rows)
    costs = np.column_stack([nothing, rows * price, rows])
    errors = np.column_stack([rows * first, rows * second, nothing])
    found = assign(costs, errors, budget=budget, whole=whole, time_limit_s=30.0, gap=0.01)
    if found is None:
        return np.full(rows.size, ACCEPT, dtype=np.int64)
    return np.asarray(found.shares.argmax(axis=1), dtype=np.int64)


def second_rates(
    risk: FloatArray, wrong: FloatArray, at: FloatArray, precision: FloatArray = _PRECISION
) -> FloatArray:
    """Error rates of the second candidate where the first one's risk is `at`.

    Args:
        risk: log-odds of an error of the first candidate on labelled rows; shape (k,).
        wrong: whether the second one is wrong there; shape (k,).
        at: log-odds for which rates are wanted; shape (n,).
    """
    centre, spread = float(risk.mean()), float(risk.std()) + 1e-9
    x = np.column_stack([np.ones(risk.size), (risk - centre) / spread])
    beta = predictor.fit(x, wrong, _PRIOR, precision)
    wanted = np.clip((at - centre) / spread, -3.0, 3.0)
    return predictor.rates(np.column_stack([np.ones(at.size), wanted]), beta)


def cells(risk: FloatArray, count: int = CELLS) -> IntArray:
    """Cell of each row by the rank of its risk; equal risks share a cell."""
    place = np.floor(ranks(risk) * count).astype(np.int64)
    return np.asarray(np.minimum(place, count - 1))


@dataclass(frozen=True, slots=True)
class Part:
    """Prompts with the same course.

    Attributes:
        answers: the candidate whose answer the plan takes.
        helpers: who else was asked about them.
        prompts: which they are; shape (n,).
    """

    answers: str
    helpers: tuple[str, ...]
    prompts: IntArray


class PlannedAnswers(Profile):
    """A profile in which the answers of a plan stand beside those of the models.

    They are copied once: what candidates answer later changes nothing.
    """

    def __init__(self, profile: Profile, parts: tuple[Part, ...]) -> None:
        self.problem = profile.problem
        codes = np.full_like(profile.codes(profile.problem.reference.name), FAILED)
        costs = np.zeros(codes.size)
        for part in parts:
            codes[part.prompts] = profile.codes(part.answers)[part.prompts]
            costs[part.prompts] = profile.costs(part.answers)[part.prompts]
        self._codes: dict[str, NDArray[np.int32]] = {**profile._codes, PLANNED: codes}
        self._costs = {**profile._costs, PLANNED: costs}
        self._confidences, self._figures = profile._confidences, profile._figures
        self._expected, self._totals = profile._expected, profile._totals
        self._learning = profile._learning


def evidence_of(profile: Profile, parts: tuple[Part, ...], prompts: IntArray) -> Evidence:
    """Evidence on the plan's answers to prompts, the columns of each part apart."""
    of_part = np.full(profile.problem.population.n_prompts, -1, dtype=np.int64)
    for k, part in enumerate(parts):
        of_part[part.prompts] = k
    gathered: list[tuple[str, BoolArray, Evidence]] = []
    for k, part in enumerate(parts):
        inside = of_part[prompts] == k
        if inside.any():
            known = evidence(profile, part.answers, part.helpers, prompts[inside])
            gathered.append((part.answers, inside, known))
    return side_by_side(gathered)
