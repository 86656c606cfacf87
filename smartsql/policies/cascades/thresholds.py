"""Thresholds on confidences, learned on labelled rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smartsql.policies.cascades.sample import Labelled
from smartsql.types import BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class Limit:
    """Keeps answers whose confidence is at least `least`; a `pair.Router`."""

    least: float

    def keeps(self, scores: FloatArray) -> BoolArray:
        """Whether each confidence reaches the limit."""
        return np.asarray(scores >= self.least)

    def facts(self) -> dict[str, float | None]:
        """The threshold, None where all answers are kept or none."""
        return {"threshold": self.least if np.isfinite(self.least) else None}


def lowest(facts: Labelled, delta: float) -> Limit:
    """The lowest confidence from which on at most a share `delta` of all rows would be wrong.

    Equal confidences stay together. The limit is infinite if no answer may be kept, minus infinity
    if all may and some have no confidence.
    """
    levels, _, wrong = _cumulated(facts)
    return _last(levels, np.asarray(wrong <= delta * facts.n_rows + 1e-9))


def lowest_precise(facts: Labelled, delta: float) -> Limit:
    """The lowest confidence from which on at most a share `delta` of the kept rows is wrong.

    Beyond that as `lowest`.
    """
    levels, kept, wrong = _cumulated(facts)
    return _last(levels, np.asarray(wrong <= delta * kept + 1e-9))


def _cumulated(facts: Labelled) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Distinct confidences, falling; rows kept and rows wrong from each on."""
    levels, place = np.unique(-facts.scores[facts.usable], return_inverse=True)
    counts = facts.counts[facts.usable]
    kept = np.bincount(place, counts, minlength=levels.size)
    wrong = np.bincount(place, counts * facts.wrong[facts.usable], minlength=levels.size)
    return -levels, np.cumsum(kept), np.cumsum(wrong)


def _last(levels: FloatArray, good: BoolArray) -> Limit:
    """The last good one of falling levels."""
    fine = np.flatnonzero(good)
    return Limit(float(levels[fine[-1]]) if fine.size else float("inf"))
