"""Recorded answers: a table of real answers that stands in for the models, for free.

Every recorded row is a prompt of its own; a call that was not recorded, or whose output is null, is
a failed answer at the model's mean cost. A recording is loaded once (`smartsql.replay.parquet`);
each replay then only looks answers up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smartsql.errors import ParameterError, SmartSQLError
from smartsql.population import Population, as_halves, digest
from smartsql.profile import Features, Problem, Profile
from smartsql.types import FAILED, Ask, BoolArray, Candidate, FloatArray, IntArray, Requirement


class RecordingError(SmartSQLError):
    """A file of recorded answers cannot be used."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What models answered to the rows of a table.

    Attributes:
        models: names, the reference first.
        codes: for each model its answers: equal codes are equal answers, `FAILED` is none;
            shape (n_rows,) each, rows in the order in which they are stored.
        costs: for each model the cost of each call, finite and not negative; shape (n_rows,).
        mean_costs: their mean, by model.
        confidences: for models that give one, the confidence of each answer, NaN where
            unknown; shape (n_rows,).
        weights: rows of the table that each recorded row stands for; shape (n_rows,).
        digests: two 64-bit halves for each row, all distinct; shape (n_rows, 2).
        prompt_prices: price of prompt tokens by model, where known for every model, else None.
        verifies: models whose confidence came from a second call that is paid for on its own,
            by the name of that call; its costs and confidences stand under that name.
        features: figures about the inputs, if anything is known of them.
        figures: figures about the answers beside their inputs, by model; shape (n_rows, k) each.
        correct: how right each answer is by a judge other than the reference, from 0 to 1, by
            model; None unless known for all models; shape (n_rows,) each.
    """

    models: tuple[str, ...]
    codes: Mapping[str, NDArray[np.int32]]
    costs: Mapping[str, FloatArray]
    mean_costs: Mapping[str, float]
    weights: IntArray
    digests: NDArray[np.uint64]
    confidences: Mapping[str, FloatArray] = field(default_factory=dict)
    prompt_prices: Mapping[str, float] | None = None
    verifies: Mapping[str, str] = field(default_factory=dict)
    features: Features | None = None
    figures: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    correct: Mapping[str, FloatArray] | None = None

    @staticmethod
    def of(
        codes: Mapping[str, ArrayLike],
        costs: Mapping[str, ArrayLike],
        *,
        confidences: Mapping[str, ArrayLike] | None = None,
        weights: ArrayLike | None = None,
        prompt_prices: Mapping[str, float] | None = None,
    ) -> Recording:
        """A recording from arrays; the first model of `codes` is the reference.

        A single number as cost holds for every row. The digest of row i is that of the text
        of i.
        """
        models = tuple(codes)
        answers = {model: np.asarray(codes[model], dtype=np.int32) for model in models}
        n = answers[models[0]].size
        paid = {m: np.broadcast_to(np.asarray(costs[m], dtype=np.float64), n) for m in models}
        return Recording(
            models,
            answers,
            paid,
            {m: total(paid[m]) / n for m in models},
            np.ones(n, dtype=np.int64) if weights is None else np.asarray(weights, np.int64),
            as_halves([digest(str(i)) for i in range(n)]),
            {m: np.asarray(c, dtype=np.float64) for m, c in (confidences or {}).items()},
            prompt_prices,
        )

    @property
    def reference(self) -> str:
        """Name of the model whose answers are the right ones."""
        return self.models[0]

    @property
    def n_rows(self) -> int:
        """Rows of the table, weights counted."""
        return int(self.weights.sum())

    @property
    def reference_spend_usd(self) -> float:
        """Cost of asking the reference about every row."""
        return total(self.costs[self.reference])

    def agrees(self, model: str) -> BoolArray:
        """Whether each row answered by `model` is right; shape (n_rows,).

        The reference agrees with itself even where it gave no usable answer.
        """
        truth = self.codes[self.reference]
        if model == self.reference:
            return np.ones(truth.size, dtype=np.bool_)
        return np.asarray((self.codes[model] == truth) & (truth >= 0))

    def problem(
        self, requirement: Requirement, seed: int, *, stored_order: bool = False
    ) -> Problem:
        """The call over all rows, in the order of `seed` or in that of the file."""
        if stored_order:
            order = np.repeat(np.arange(self.weights.size), self.weights)
            population = Population.in_order(order, self.weights)
        else:
            population = Population.shuffled(self.digests, self.weights, seed)
        reference, *others = (Candidate(m, self.mean_costs[m]) for m in self.models)
        verifiers = (
            Candidate(name, self.mean_costs[name], after=(model,))
            for name, model in self.verifies.items()
            if model in self.models
        )
        return Problem(
            requirement, population, reference, tuple(others), tuple(verifiers), self.features
        )

    def without(self, model: str) -> Recording:
        """The same answers with one candidate fewer; the reference stays whatever is named."""
        kept = tuple(m for m in self.models if m != model or m == self.reference)
        return replace(self, models=kept)

    def verified(self, costs: Mapping[str, FloatArray]) -> Recording:
        """The same answers, with confidences of some models as calls of their own.

        Args:
            costs: what the second calls cost, by the model whose answers they judge;
                shape (n_rows,) each.
        """
        names = {model: f"{model} verification" for model in costs if model in self.confidences}
        failed = {m: self.codes[m] == FAILED for m in names}
        paid = {names[m]: np.where(failed[m], 0.0, costs[m]) for m in names}
        kept = {m: c for m, c in self.confidences.items() if m not in names}
        return replace(
            self,
            codes={**self.codes, **{names[m]: self.codes[m] for m in names}},
            costs={**self.costs, **paid},
            mean_costs={**self.mean_costs, **{n: total(c) / c.size for n, c in paid.items()}},
            confidences={**kept, **{names[m]: self.confidences[m] for m in names}},
            verifies={**self.verifies, **{name: m for m, name in names.items()}},
        )


@dataclass(frozen=True, slots=True)
class RecordedSource:
    """Answers every ask from a recording."""

    recording: Recording

    def fulfil(self, asks: Sequence[Ask], profile: Profile) -> None:
        """Record the stored answers, costs and, now that they are paid for, confidences."""
        recording = self.recording
        for ask in asks:
            if ask.fit:
                raise ParameterError(
                    f"model {ask.model!r} cannot be trained: a recording only repeats answers."
                )
            confidences = recording.confidences.get(ask.model)
            figures = recording.figures.get(ask.model)
            profile.record(
                ask.model,
                ask.prompts,
                recording.codes[ask.model][ask.prompts],
                recording.costs[ask.model][ask.prompts],
                None if confidences is None else confidences[ask.prompts],
                None if figures is None else figures[ask.prompts],
            )


def total(costs: FloatArray) -> float:
    """Sum of costs, exact and so the same on every machine and in every order of rows."""
    return math.fsum(costs)
