"""Training a classifier on the reference's answers, with a cheap model's answers as a first lesson.

Two-stage confidence distillation, on a table: the first stage learns what a cheap model knows,
from rows on which it and the reference agree and, weighed by how far its confidence has earned
trust, from its answers to rows that the reference has not answered. The second stage starts there
and learns from the reference's answers alone. Without a cheap model there is the second stage
only; with a classifier kept from an earlier statement everything starts from that one.

The published losses and thresholds are not available; what follows is our choice, made on held-out
rows: stages are ridge regressions, each held to the weights of the one before, and an answer of
the cheap model counts by how much oftener than chance it is expected to agree. On reviews answered
by a language model, with a word list as the cheap model, that took the held-out agreement from .59
to .68 at 100 labels, and from .68 to .73 at 800.

Source: the idea of Data Shunt+ (arXiv 2406.15471), two-stage confidence distillation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from smartsql.gateway import Hint
from smartsql.gateway.classifier import (
    Classifier,
    Features,
    Rows,
    columns_of,
    moved,
    ridge,
    rounded,
    temperature,
    with_constant,
)
from smartsql.gateway.learned_parameters import LearnedParameters
from smartsql.types import BoolArray, FloatArray, IntArray

FOLDS, FEW_FOLDS, MANY_ANSWERS = 4, 2, 10
"""Parts that the labels are cut into; fewer where there are many answers, each to be fitted."""
FEWEST_TO_CALIBRATE = 30
AGREES = (0.85, 1.0)
"""Log-odds that a cheap model agrees, at its middling confidence, and how they rise with the rank
of its confidence, as long as no label says otherwise."""
EARNED = (9.0, 9.0)
"""Prior variances of the two."""
LEAST_WEIGHT = 0.02
"""Answers of the cheap model that would count less are left out."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What there is to learn from.

    Attributes:
        inputs, answers: texts with the reference's normalised answers.
        hints: a cheap model's answers, to these texts or others.
    """

    inputs: tuple[str, ...]
    answers: tuple[str, ...]
    hints: tuple[Hint, ...] = ()

    @staticmethod
    def of(inputs: Sequence[str], answers: Sequence[str], hints: Sequence[Hint] = ()) -> Lesson:
        """A lesson whose order plays no part.

        Raises:
            ValueError: `inputs` and `answers` differ in length.
        """
        pairs = sorted(zip(inputs, answers, strict=True))
        return Lesson(
            tuple(text for text, _ in pairs),
            tuple(answer for _, answer in pairs),
            tuple(sorted(hints, key=lambda hint: (hint.input, hint.answer))),
        )

    def obstacle(self, start: Classifier | None, most: int) -> str | None:
        """Why nothing can be learned from it, None if something can."""
        classes = set(self.answers) | set(start.answers if start else ())
        if len(classes) < 2:
            return f"its training set of {len(self.inputs)} has fewer than two different answers"
        if len(classes) > most:
            return (
                f"its training set has {len(classes)} different answers, more than max_classes = "
                f"{most}"
            )
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """A trained classifier that knows what it was taught.

    About a text of its own lesson it answers as it would have done without: the right answer is
    known there, and what others want to know is how good it is where it is not. So its answers
    mean the same on all texts, and evidence that is weighed on the labelled ones holds elsewhere.

    Attributes:
        whole: what was learned from the whole lesson.
        parts: what was learned without one part of it each.
        part_of: the part in which a text of the lesson is.
    """

    whole: Classifier
    parts: tuple[Classifier, ...] = ()
    part_of: Mapping[str, int] = field(default_factory=dict)

    def answered(
        self, texts: Sequence[str], features: Features, labels: tuple[str, ...]
    ) -> tuple[list[str], list[float]]:
        """The likeliest answer for each text, and its probability.

        Args:
            labels: those of the task, empty for an open one.
        """
        answers, sure = without_unseen(self.whole, labels).answered(features(texts))
        places = np.array([self.part_of.get(text, -1) for text in texts], dtype=np.int64)
        for number, part in enumerate(self.parts):
            rows = np.flatnonzero(places == number).tolist()
            if rows:
                own = features([texts[row] for row in rows])
                for row, answer, p in zip(
                    rows, *without_unseen(part, labels).answered(own), strict=True
                ):
                    answers[row], sure[row] = answer, p
        return answers, sure


def trained(
    lesson: Lesson, parameters: LearnedParameters, start: Classifier | None, features: Features
) -> Taught:
    """The classifier that a lesson leads to; deterministic in its arguments.

    Args:
        lesson: one without an obstacle.
        start: what was known before.
    """
    if start is not None and not lesson.inputs:
        return Taught(start)
    answers = tuple(sorted(set(lesson.answers) | set(start.answers if start else ())))
    stages, columns = _stages(lesson, parameters, start, features, answers)
    n = len(lesson.inputs)
    folds = min(FOLDS if len(answers) <= MANY_ANSWERS else FEW_FOLDS, n)
    fold_of = np.arange(n) % folds
    outside = [stages.weights(np.flatnonzero(fold_of != fold)) for fold in range(folds)]
    once = sum(count == 1 for count in Counter(lesson.answers).values())
    whole = rounded(
        Classifier(
            answers,
            columns,
            stages.weights(np.arange(n)),
            _temperature(stages, outside, fold_of, start),
            once / (n + 1.0),
            n + (start.labels if start else 0),
        )
    )
    parts = [rounded(replace(whole, columns=columns, weights=weights)) for weights in outside]
    return Taught(whole, tuple(parts), dict(zip(lesson.inputs, fold_of.tolist(), strict=True)))


def _stages(
    lesson: Lesson,
    parameters: LearnedParameters,
    start: Classifier | None,
    features: Features,
    answers: tuple[str, ...],
) -> tuple[_Stages, IntArray]:
    """A lesson as rows of numbers, and the columns of features that they are about."""
    hints = [hint for hint in lesson.hints if hint.answer in answers]
    x, others = features(lesson.inputs), features([hint.input for hint in hints])
    columns = columns_of([x, others], start)
    codes = {answer: code for code, answer in enumerate(answers)}
    said = np.array([codes[answer] for answer in lesson.answers], dtype=np.int64)
    labelled = Rows(with_constant(x, columns), said, np.ones(said.size))
    hinted = Rows(
        with_constant(others, columns),
        np.array([codes[hint.answer] for hint in hints], dtype=np.int64),
        np.array([hint.confidence for hint in hints], dtype=np.float64),
    )
    numbers = {text: row for row, text in enumerate(lesson.inputs)}
    places = np.array([numbers.get(hint.input, -1) for hint in hints], dtype=np.int64)
    before = np.zeros((len(answers), columns.size + 1))
    if start is not None:
        before = start.laid_out(answers, columns)
    return _Stages(labelled, hinted, places, before, parameters.strength), columns


@dataclass(frozen=True, slots=True, eq=False)
class _Stages:
    """The two stages over one set of rows.

    Attributes:
        labelled: rows with the reference's answers.
        hinted: rows with a cheap model's; their weights are its confidences, NaN where unknown.
        places: the labelled row of the same text for each hinted one, -1 for none.
        before: weights to start from.
    """

    labelled: Rows
    hinted: Rows
    places: IntArray
    before: FloatArray
    strength: float

    def weights(self, rows: IntArray) -> FloatArray:
        """Weights learned when only these labelled rows have labels."""
        if rows.size == 0:
            return self.before
        is_known = np.zeros(self.labelled.codes.size + 1, dtype=np.bool_)
        is_known[rows] = True  # the last entry is that of place -1: never known
        first = moved(self.before, self._first(is_known[self.places]), self.strength)
        return moved(first, self.labelled.taken(rows), self.strength)

    def _first(self, has_label: BoolArray) -> Rows:
        """What the first stage learns from, given which hinted rows have a label."""
        hinted = self.hinted
        agrees = has_label & (hinted.codes == self.labelled.codes[self.places])
        trust = earned_trust(hinted.weights, has_label, agrees)
        chance = 1.0 / self.before.shape[0]
        weights = np.where(has_label, agrees, np.clip((trust - chance) / (1 - chance), 0.0, 1.0))
        used = np.flatnonzero(weights >= LEAST_WEIGHT)
        return Rows(hinted.x[used], hinted.codes[used], weights[used])


def earned_trust(confidences: FloatArray, has_label: BoolArray, agrees: BoolArray) -> FloatArray:
    """How probably each answer of a cheap model agrees, by what labels say of its confidence.

    A ridge logistic regression of agreement on the rank of the confidence.

    Args:
        confidences: NaN where unknown; shape (n,).
        has_label: which rows the reference has answered; shape (n,).
        agrees: on which of them the two agree; shape (n,).
    """
    from scipy.special import expit

    rank = np.zeros(confidences.size)
    known = np.isfinite(confidences)
    _, where, counts = np.unique(confidences[known], return_inverse=True, return_counts=True)
    rank[known] = (np.cumsum(counts) - counts / 2)[where] / max(1, where.size) - 0.5
    x = np.column_stack([np.ones(rank.size), rank])
    prior = x @ np.array(AGREES)
    scale = np.sqrt(np.array(EARNED))
    seen = has_label
    step = ridge(x[seen] * scale, agrees[seen], np.ones(int(seen.sum())), prior[seen])
    return np.asarray(expit(prior + x @ (step * scale)))


def _temperature(
    stages: _Stages, outside: Sequence[FloatArray], fold_of: IntArray, start: Classifier | None
) -> float:
    """The temperature by predictions for rows that were left out of the fit."""
    rows = stages.labelled
    if rows.codes.size < FEWEST_TO_CALIBRATE:
        return start.temperature if start else 1.0
    margins = np.zeros((rows.codes.size, stages.before.shape[0]))
    for fold, weights in enumerate(outside):
        margins[fold_of == fold] = rows.x[fold_of == fold] @ weights.T
    return temperature(margins, rows.codes)


def without_unseen(classifier: Classifier, labels: tuple[str, ...]) -> Classifier:
    """The classifier for a task with these labels: those it never saw are the unseen ones."""
    if labels and set(labels) <= set(classifier.answers):
        return replace(classifier, unseen=0.0)
    return classifier
