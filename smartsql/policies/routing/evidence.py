"""What tells rows apart before the reference is asked: evidence of a primary and its helpers.

Every column is a function of answers, costs and confidences of candidates alone. Columns that are
constant or unknown are left out, so that models without confidences are as welcome as others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from smartsql.features import ANSWER_NAMES
from smartsql.profile import Features, Profile
from smartsql.types import FAILED, BoolArray, FloatArray, IntArray

HINGES = (0.2, 0.4, 0.6, 0.8)
FEW_LABELS = 12
"""Answers of up to so many different kinds are taken for labels."""
TEXT_PRECISION = 20.0
"""Figures of texts say little on most tables: a coefficient needs many labels to move."""
COMMON = 0.03
"""Share of the rows from which on an answer has a column of its own."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Columns for some prompts.

    Attributes:
        x: values, the first column 1, the others of mean 0 and standard deviation 1; shape (n, f).
        prior: prior mean of each coefficient; shape (f,).
        precision: prior precision of each; shape (f,).
        names: what each column is.
    """

    x: FloatArray
    prior: FloatArray
    precision: FloatArray
    names: tuple[str, ...]

    @property
    def guided(self) -> bool:
        """Whether any column is expected to tell errors before a label was seen."""
        return bool((self.prior[1:] != 0.0).any())

    def at(self, some: BoolArray) -> Evidence:
        """The same about some of the prompts."""
        return Evidence(self.x[some], self.prior, self.precision, self.names)


@dataclass
class _Columns:
    """Columns as they are gathered."""

    n: int
    values: list[FloatArray] = field(default_factory=list)
    prior: list[float] = field(default_factory=list)
    precision: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def add(
        self, name: str, values: FloatArray, prior: float = 0.0, precision: float = 2.0
    ) -> None:
        """Standardise and keep, unless constant."""
        spread = float(values.std())
        if spread > 1e-9:
            self.values.append((values - values.mean()) / spread)
            self.prior.append(prior)
            self.precision.append(precision)
            self.names.append(name)

    def done(self) -> Evidence:
        """The evidence, with its constant column in front."""
        x = np.column_stack([np.ones(self.n), *self.values])
        return Evidence(
            x,
            np.array([-1.5, *self.prior]),
            np.array([0.25, *self.precision]),
            ("constant", *self.names),
        )


def evidence(
    profile: Profile, primary: str, helpers: tuple[str, ...], prompts: IntArray
) -> Evidence:
    """Evidence on the primary's answers to prompts that it and the helpers have answered.

    Args:
        helpers: candidates whose answers are compared with the primary's, and verifiers of it or
            of them.
    """
    columns = _Columns(prompts.size)
    judges = {v.after[0]: v.name for v in profile.problem.verifiers if v.name in helpers}
    given = profile.codes(primary)[prompts]
    rank = _confidence(columns, profile, primary, judges.get(primary), prompts)
    _labels(columns, by_appearance(given), rank)
    _answers(columns, profile.figures(primary), given, prompts)
    costs = profile.costs(primary)[prompts]
    columns.add("call cost", ranks(costs), precision=4.0)
    _texts(columns, profile.problem.features, prompts)
    agreed = []
    for helper in (h for h in helpers if h not in judges.values()):
        others = profile.codes(helper)[prompts]
        agrees = ((others == given) & (given != FAILED)).astype(np.float64)
        agreed.append(agrees)
        columns.add(f"{helper} agrees", agrees, prior=-0.8)
        sure = _known_ranks(profile.confidences(helper)[prompts])
        if sure is None and helper in judges:
            sure = _known_ranks(profile.confidences(judges[helper])[prompts])
        if sure is not None:
            columns.add(f"{helper} agrees, confidence", (sure - 0.5) * agrees, prior=-0.2)
            columns.add(f"{helper} differs, confidence", (sure - 0.5) * (1 - agrees), prior=0.2)
        if rank is not None:
            columns.add(f"{helper} agrees x confidence", (rank - 0.5) * (agrees - agrees.mean()))
    if len(agreed) == 2:
        both = (agreed[0] - agreed[0].mean()) * (agreed[1] - agreed[1].mean())
        columns.add("both agree", both)
    return columns.done()


def side_by_side(parts: Sequence[tuple[str, BoolArray, Evidence]]) -> Evidence:
    """Evidence of several groups of prompts, each with columns of its own.

    Args:
        parts: name of each group, which of all prompts are in it, and the evidence about those;
            the masks have shape (n,), and each prompt is in one of them.
    """
    values, prior, precision, names = [], [], [], []
    for name, inside, part in parts:
        block = np.zeros((inside.size, part.x.shape[1]))
        block[inside] = part.x
        values.append(block)
        prior.append(part.prior)
        precision.append(part.precision)
        names += [f"{name}: {column}" for column in part.names]
    return Evidence(
        np.hstack(values), np.concatenate(prior), np.concatenate(precision), tuple(names)
    )


def _confidence(
    columns: _Columns, profile: Profile, primary: str, judge: str | None, prompts: IntArray
) -> FloatArray | None:
    """Columns of the primary's confidence, its own or its verifier's; ranks, None if unknown."""
    values = profile.confidences(primary)[prompts]
    rank = _known_ranks(values)
    judged = None if judge is None else profile.confidences(judge)[prompts]
    if judged is not None and rank is None:
        values, rank, judged = judged, _known_ranks(judged), None
    if rank is None:
        return None
    columns.add("confidence", rank, prior=-1.0)
    for hinge in HINGES:
        columns.add(f"confidence above {hinge}", np.maximum(0.0, rank - hinge))
    known = np.isfinite(values)
    columns.add("confidence unknown", (~known).astype(np.float64))
    second = None if judged is None else _known_ranks(judged)
    if second is not None:
        columns.add("verification", second, prior=-0.5)
    return rank


def _texts(columns: _Columns, features: Features | None, prompts: IntArray) -> None:
    """Columns of what the texts of the prompts say."""
    if features is None:
        return
    for k, name in enumerate(features.names):
        values = features.values[prompts, k].astype(np.float64)
        columns.add(f"text: {name}", values, precision=TEXT_PRECISION)


def _answers(
    columns: _Columns,
    figures: NDArray[np.uint8] | None,
    codes: NDArray[np.int32],
    prompts: IntArray,
) -> None:
    """Columns of what open answers say beside their texts; labels say nothing of the kind."""
    if figures is None or np.unique(codes).size <= min(FEW_LABELS, codes.size // 2):
        return
    for k, name in enumerate(ANSWER_NAMES):
        columns.add(f"answer: {name}", figures[prompts, k].astype(np.float64), precision=4.0)


def _labels(columns: _Columns, codes: np.ndarray, rank: FloatArray | None) -> None:
    """Columns of the answer given: its kind where few, how common it is where many."""
    kinds, where, counts = np.unique(codes, return_inverse=True, return_counts=True)
    where = where.reshape(codes.shape)
    common = np.flatnonzero(counts >= COMMON * codes.size)
    few = min(FEW_LABELS, codes.size // 2)
    if kinds.size > few:
        columns.add("answer frequency", np.log(counts[where]), prior=-0.3)
        columns.add("answer given once", (counts[where] == 1).astype(np.float64), prior=0.15)
    for kind in common[np.argsort(-counts[common], kind="stable")][:FEW_LABELS]:
        given = (where == kind).astype(np.float64)
        columns.add(f"answer {kinds[kind]}", given)
        if rank is not None and kinds.size <= few:
            columns.add(f"answer {kinds[kind]} x confidence", given * (rank - 0.5), precision=4.0)


def by_appearance(codes: NDArray[np.int32]) -> IntArray:
    """Codes numbered by where each occurs first, so that it does not matter how they arose."""
    _, first, where = np.unique(codes, return_index=True, return_inverse=True)
    number = np.empty(first.size, dtype=np.int64)
    number[np.argsort(first)] = np.arange(first.size)
    return number[where.reshape(codes.shape)]


def _known_ranks(values: FloatArray) -> FloatArray | None:
    """Ranks in [0, 1], unknown ones in the middle; None if most are unknown or all are equal."""
    known = np.isfinite(values)
    if known.sum() * 2 < max(1, values.size):
        return None
    result = np.full(values.size, 0.5)
    result[known] = ranks(values[known])
    return result if result.std() > 1e-9 else None


def ranks(values: FloatArray) -> FloatArray:
    """Mean rank of each value among all, from 0 to 1; equal values share theirs."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle = ends - (counts + 1) / 2
    return np.asarray(middle[where.reshape(values.shape)] / max(1, values.size - 1))
