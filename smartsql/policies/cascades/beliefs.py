"""A ladder of models as a partially observable decision problem, solved exactly.

Hidden is which rungs of the ladder repeat the reference's answer, and with that which is the first
that does. (The first alone would not do: whether a later rung is right as well decides what it
costs to accept that one.) Seen are the bins of confidences and verifications, noise about one rung
each that is learned on labelled rows. After each answer one may accept it, have it verified where
there is a second call for that, or go on to any later rung or to the reference. What is minimised
is

    cost of the calls + penalty * (a wrong answer is accepted).

Every action moves on, so the horizon is finite: at most an answer and a verification for each
rung. The cheapest action at a belief follows by backward induction over the tree of beliefs that
the possible observations span from it (`Solution.decide`); no belief is rounded to a grid.

Source: for the problem AutoMix (arXiv 2310.12963), which solves one step of it; for the solution
Smallwood and Sondik (1973), finite horizons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smartsql.policies.cascades.routers import BINS, Bins
from smartsql.types import BoolArray, FloatArray, IntArray

ACCEPT, VERIFY, GO = 0, 1, 2
"""Actions; GO + j asks rung j, the reference being the last."""

_START = -1
"""The rung before the first answer."""
_NEVER = 1e-300
"""Chance of what cannot be seen; its belief does not matter."""
_STRENGTH = 4.0
"""Labelled rows that the noise common to all states counts as much as."""


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """What is seen of an answer in each hidden state.

    Attributes:
        bins: of the confidences.
        likelihood: of each bin; shape (n_states, BINS + 1), rows sum to 1.
        price: of looking, relative to a call of the reference; 0 if it comes with the answer.
    """

    bins: Bins
    likelihood: FloatArray
    price: float = 0.0

    @staticmethod
    def learn(
        scores: FloatArray, right: BoolArray, counts: IntArray, bits: BoolArray, price: float = 0.0
    ) -> Noise:
        """Shares of the labelled rows, drawn towards those of right and wrong answers together.

        Args:
            scores, right, counts: of labelled answers; shape (n,).
            bits: whether the answer is right in each hidden state; shape (n_states,).
        """
        bins = Bins.of(scores, counts)
        table = np.zeros((2, BINS + 1))
        np.add.at(table, (right.astype(np.int64), bins.place(scores)), counts)
        pooled = table.sum(axis=0) + 0.5
        table += _STRENGTH * pooled / pooled.sum()
        shares = table / table.sum(axis=1, keepdims=True)
        return Noise(bins, shares[bits.astype(np.int64)], price)


@dataclass(frozen=True, slots=True, eq=False)
class Rung:
    """One cheap model.

    Attributes:
        price: of an answer, relative to one of the reference.
        right: whether its answer is right in each state; shape (n_states,).
        own: what its own confidence says, if it says anything.
        verification: what a second call says, if there is one.
    """

    price: float
    right: BoolArray
    own: Noise | None = None
    verification: Noise | None = None

    @property
    def observations(self) -> int:
        """What can be seen of one answer."""
        return (self.own is not None) + (self.verification is not None)


def states(n_rungs: int) -> BoolArray:
    """Whether each rung is right in each hidden state; shape (n_rungs, 2**n_rungs)."""
    return np.asarray((np.arange(2**n_rungs) >> np.arange(n_rungs)[:, None]) & 1, dtype=np.bool_)


def learn_prior(agrees: BoolArray, counts: IntArray) -> FloatArray:
    """Shares of labelled rows in each hidden state; all are possible.

    Args:
        agrees: whether each rung is right; shape (n_rungs, n).
        counts: rows; shape (n,).
    """
    n_rungs = agrees.shape[0]
    state = (1 << np.arange(n_rungs)) @ agrees
    rows = np.bincount(state, counts, minlength=2**n_rungs) + 1.0 / 2**n_rungs
    return np.asarray(rows / rows.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """The cheapest action at any belief.

    Attributes:
        prior: belief before the first answer; shape (n_states,).
        rungs: the cheap models, cheapest first.
        penalty: of accepting a wrong answer, in calls of the reference.
    """

    prior: FloatArray
    rungs: Sequence[Rung]
    penalty: float

    def decide(
        self, beliefs: FloatArray, at: int, *, verifiable: bool
    ) -> tuple[IntArray, FloatArray]:
        """The best action at each belief, and the expected cost from there on.

        Args:
            beliefs: shape (n, n_states).
            at: the rung that has just answered; -1 before the first.
            verifiable: whether its answer can still be verified.

        Returns:
            `ACCEPT`, `VERIFY` or GO + j, and costs in calls of the reference; shape (n,) each.
        """
        n_rungs, n = len(self.rungs), beliefs.shape[0]
        costs = np.full((n, GO + n_rungs + 1), np.inf)
        if at > _START:
            rung = self.rungs[at]
            costs[:, ACCEPT] = self.penalty * (beliefs @ ~rung.right)
            if verifiable and rung.verification:
                costs[:, VERIFY] = self._seen(beliefs, rung.verification, at, verifiable=False)
        for later in range(at + 1, n_rungs):
            costs[:, GO + later] = self._answered(beliefs, later)
        costs[:, GO + n_rungs] = 1.0
        actions = np.argmin(costs, axis=1)
        return actions, costs[np.arange(n), actions]

    def start(self) -> FloatArray:
        """The belief before anything is known; shape (1, n_states)."""
        return self.prior[None, :]

    def _answered(self, beliefs: FloatArray, rung: int) -> FloatArray:
        """Expected cost of asking a rung and going on from there."""
        model = self.rungs[rung]
        verifiable = model.verification is not None
        if model.own is None:
            return model.price + self.decide(beliefs, rung, verifiable=verifiable)[1]
        return model.price + self._seen(beliefs, model.own, rung, verifiable=verifiable)

    def _seen(self, beliefs: FloatArray, noise: Noise, at: int, *, verifiable: bool) -> FloatArray:
        """Expected cost of looking and going on from what is seen."""
        joint = beliefs[:, None, :] * noise.likelihood.T[None, :, :]
        chance = joint.sum(axis=2)
        posterior = (joint / np.maximum(chance, _NEVER)[:, :, None]).reshape(-1, beliefs.shape[1])
        after = self.decide(posterior, at, verifiable=verifiable)[1]
        return np.asarray(noise.price + (chance * after.reshape(chance.shape)).sum(axis=1))


def updated(beliefs: FloatArray, noise: Noise, bins: IntArray) -> FloatArray:
    """Beliefs after one observation each; shape (n, n_states)."""
    joint = beliefs * noise.likelihood[:, bins].T
    return np.asarray(joint / joint.sum(axis=1, keepdims=True))
