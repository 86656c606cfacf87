"""AutoMix's one-step routers: maps from bins of the verification to keep or retry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from smartsql.policies.cascades.sample import Labelled
from smartsql.types import BoolArray, FloatArray, IntArray

BINS = 8
"""Bins of confidences, as published; one more, the lowest, holds answers without any."""
REWARDS = 5_000
"""Penalties of an error that the one-step router tries, in hundredths of a reference call."""
SMOOTHING = 2.0
"""Standard deviation, in bins, of the smoothing of gains, as published."""


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """Bins that hold about equally many labelled rows each.

    A share of verification samples spreads over eight equal steps; a probability crowds close to
    1, so here the bins are octiles of the labelled rows.

    Attributes:
        edges: rising lower ends of all bins but the first with a confidence.
    """

    edges: FloatArray

    @staticmethod
    def of(scores: FloatArray, counts: IntArray) -> Bins:
        """Octiles of the confidences that there are, rows counted."""
        known = np.repeat(scores, counts)
        known = np.sort(known[np.isfinite(known)])
        if not known.size:
            return Bins(np.zeros(0))
        return Bins(np.unique(known[np.arange(1, BINS) * known.size // BINS]))

    def place(self, scores: FloatArray) -> IntArray:
        """Bin of each confidence, 0 to `BINS`; 0 is none."""
        bins = 1 + np.searchsorted(self.edges, scores, side="right")
        return np.where(np.isfinite(scores), bins, 0).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class BinRouter:
    """Retries with the reference in some bins; a `pair.Router`.

    Attributes:
        bins: of confidences.
        retries: whether each bin goes on; shape (BINS + 1,).
    """

    bins: Bins
    retries: BoolArray

    def keeps(self, scores: FloatArray) -> BoolArray:
        """Whether the answer stays."""
        return np.asarray(~self.retries[self.bins.place(scores)])

    def facts(self) -> dict[str, Any]:
        """The edges of the bins, and which of them go on to the reference."""
        return {"bins": self.bins.edges.tolist(), "retries": self.retries.tolist()}


def train_threshold(facts: Labelled, delta: float) -> BinRouter:
    """The best router that retries up to some bin."""
    bins = Bins.of(facts.scores, facts.counts)
    return BinRouter(bins, _best(facts, bins, threshold_maps(), delta))


def train_simple(facts: Labelled, delta: float) -> BinRouter:
    """The best router of the four published families together."""
    bins = Bins.of(facts.scores, facts.counts)
    place = bins.place(facts.scores)
    rows = np.bincount(place, facts.counts, minlength=BINS + 1)
    lost = np.bincount(place, facts.counts * ~_right(facts), minlength=BINS + 1)
    # what was never observed is doubtful, and doubt costs money
    needy = np.where(rows > 0, lost / np.maximum(rows, 1), 1.0)
    maps = [
        *threshold_maps(),
        *double_threshold_maps(),
        *reward_maps(needy),
        *greedy_maps(needy),
    ]
    return BinRouter(bins, _best(facts, bins, maps, delta))


def threshold_maps() -> list[BoolArray]:
    """Retry up to a bin: none, the lowest one, .., all."""
    return [np.arange(BINS + 1) < first for first in range(BINS + 2)]


def double_threshold_maps() -> list[BoolArray]:
    """Retry between two bins: an answer may be beyond help, or so the published form has it."""
    places = np.arange(BINS + 1)
    return [(places >= lo) & (places <= hi) for lo in places for hi in places[lo + 1 :]]


def reward_maps(needy: FloatArray) -> list[BoolArray]:
    """What maximises the reward in each bin, for every price of an error.

    Keeping an answer that the reference would have repaired costs r, retrying 100. The published
    third state, questions that are beyond both models, does not occur where the reference is right
    by definition.

    Args:
        needy: share of wrong answers in each bin.
    """
    rewards = np.arange(REWARDS)[:, None]
    return list(np.unique(rewards * needy > 100.0, axis=0))


def greedy_maps(gains: FloatArray) -> list[BoolArray]:
    """Retry the bins of the largest smoothed gain: one of them, two, .., all."""
    smooth = gaussian_filter1d(gains, SMOOTHING)
    order = np.argsort(-smooth, kind="stable")
    rank = np.argsort(order, kind="stable")
    return [rank < n for n in range(1, gains.size + 1)]


def _right(facts: Labelled) -> BoolArray:
    """Answers that need no repair."""
    return np.asarray(facts.usable & ~facts.wrong)


def _best(facts: Labelled, bins: Bins, maps: Sequence[BoolArray], delta: float) -> BoolArray:
    """The cheapest map whose labelled rows kept the promise, the one with fewer errors of equals.

    Retrying in all bins keeps every promise, so there is one.
    """
    place = bins.place(facts.scores)
    allowed = delta * facts.n_rows + 1e-9
    rated = []
    for number, retries in enumerate(maps):
        kept = np.asarray(~retries[place])
        errors = facts.errors(kept)
        if errors <= allowed:
            rated.append((facts.cost(kept), errors, number))
    return maps[min(rated)[2]]
