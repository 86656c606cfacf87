"""What is known so far about a problem: answers and costs by model and prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartsql.population import Population
from smartsql.types import (
    UNKNOWN,
    BoolArray,
    Candidate,
    FloatArray,
    IntArray,
    Requirement,
)


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Figures about the text of each prompt, known before any call.

    Attributes:
        names: of the figures.
        values: from 0 to 255, so that they are kept and compared exactly; shape (n_prompts, k).
    """

    names: tuple[str, ...]
    values: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Problem:
    """A call to be answered: rows, requirement, and who may answer.

    Attributes:
        candidates: models other than the reference, in the order of the configuration.
        verifiers: calls that judge a candidate's answer. They answer nothing themselves: the
            profile shows the verified model's answer, with the verifier's confidence in it.
        features: what the texts of the prompts say at no cost, if anything.
        others: further calls whose answers no row carries: the steps of a task, which go into the
            prompts of candidates, and the reference asked again.
    """

    requirement: Requirement
    population: Population
    reference: Candidate
    candidates: tuple[Candidate, ...]
    verifiers: tuple[Candidate, ...] = ()
    features: Features | None = None
    others: tuple[Candidate, ...] = ()

    @property
    def models(self) -> tuple[Candidate, ...]:
        """The reference, then the candidates: the positions that `Plan.assigned` uses."""
        return (self.reference, *self.candidates)

    @property
    def callable(self) -> tuple[Candidate, ...]:
        """All that can be asked: the models, then the verifiers, then the others."""
        return (*self.models, *self.verifiers, *self.others)

    def calls_of(self, *names: str) -> tuple[str, ...]:
        """All calls that asking these models takes: they, and what goes into their prompts."""
        after = {model.name: model.after for model in self.callable}
        found = dict.fromkeys(names)
        for name in names:
            found |= dict.fromkeys(self.calls_of(*after[name]))
        return tuple(found)

    @property
    def tolerated(self) -> int:
        """Rows that may differ."""
        return self.requirement.tolerated(self.population.n_rows)


class Profile:
    """All answers known so far. Policies read it; only the executor writes.

    Answers are codes: two answers agree when their codes are equal and not negative. `UNKNOWN`
    was never asked, `FAILED` gave no usable answer and agrees with nothing.
    """

    def __init__(self, problem: Problem) -> None:
        n = problem.population.n_prompts
        self.problem = problem
        everyone = problem.callable
        self._codes = {m.name: np.full(n, UNKNOWN, dtype=np.int32) for m in everyone}
        self._costs = {m.name: np.zeros(n, dtype=np.float64) for m in everyone}
        self._confidences: dict[str, NDArray[np.float64]] = {}
        self._figures: dict[str, NDArray[np.uint8]] = {}
        self._expected = {m.name: m.expected_cost for m in everyone}
        self._learning = {m.name for m in everyone if m.learns}
        # in whole 1e-12 units, so that the sum does not depend on the order of arrival
        self._totals = {m.name: [0, 0] for m in everyone}

    def codes(self, model: str) -> NDArray[np.int32]:
        """Answer codes of a model; shape (n_prompts,)."""
        return self._codes[model]

    def known(self, model: str, prompts: IntArray) -> BoolArray:
        """Whether the model was asked each prompt (with or without a usable answer)."""
        return np.asarray(self._codes[model][prompts] != UNKNOWN)

    def disagrees(self, model: str, prompts: IntArray) -> BoolArray:
        """Whether the model and the reference differ on prompts both were asked.

        A failed answer on either side is a disagreement.
        """
        mine = self._codes[model][prompts]
        truth = self._codes[self.problem.reference.name][prompts]
        if (mine == UNKNOWN).any() or (truth == UNKNOWN).any():
            raise ValueError(f"disagreement of {model} asked for prompts that were not answered")
        return np.asarray((mine != truth) | (mine < 0))

    def confidences(self, model: str) -> FloatArray:
        """Confidence of each answer, NaN where none is known; shape (n_prompts,)."""
        if model not in self._confidences:
            self._confidences[model] = np.full(self._codes[model].size, np.nan)
        return self._confidences[model]

    def figures(self, model: str) -> NDArray[np.uint8] | None:
        """Figures about a model's answers beside their texts, if known; shape (n_prompts, k)."""
        return self._figures.get(model)

    def n_asked(self, model: str) -> int:
        """Calls to the model: each prompt once, unless a learning model was asked anew."""
        return self._totals[model][0]

    def mean_cost(self, model: str) -> float:
        """Mean cost of the model's calls, or the expected cost before the first."""
        asked, total = self._totals[model]
        return total / 1e12 / asked if asked else self._expected[model]

    def costs(self, model: str) -> FloatArray:
        """Cost of each answered prompt, of all its calls, 0 where unknown; shape (n_prompts,)."""
        return self._costs[model]

    def record(
        self,
        model: str,
        prompts: IntArray,
        codes: NDArray[np.int32],
        costs: FloatArray,
        confidences: FloatArray | None = None,
        figures: NDArray[np.uint8] | None = None,
    ) -> None:
        """Add answers; for the executor only.

        A prompt is recorded once for each model, but that a learning model's answers of a later
        training replace those of an earlier one: calls and costs add up, the rest is the last.
        """
        assert (codes != UNKNOWN).all()
        assert model in self._learning or not self.known(model, prompts).any()
        self._codes[model][prompts] = codes
        self._costs[model][prompts] += costs
        if confidences is not None:
            self.confidences(model)[prompts] = confidences
        elif model in self._confidences:
            self._confidences[model][prompts] = np.nan
        if figures is not None:
            if model not in self._figures:
                shape = (self._codes[model].size, figures.shape[1])
                self._figures[model] = np.zeros(shape, dtype=np.uint8)
            self._figures[model][prompts] = figures
        totals = self._totals[model]
        totals[0] += prompts.size
        totals[1] += int(np.rint(costs * 1e12).astype(np.int64).sum())
