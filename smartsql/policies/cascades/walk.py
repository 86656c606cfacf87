"""Prompts on their way through a tree of beliefs."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from smartsql.policies.cascades.beliefs import ACCEPT, GO, VERIFY, Noise, Solution, updated
from smartsql.policies.cascades.routers import BINS
from smartsql.policies.cascades.tiers import Tier
from smartsql.profile import Profile
from smartsql.types import Ask, BoolArray, FloatArray, IntArray

Move = tuple[int, bool]
"""A rung, and whether its answer is verified rather than asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Walked:
    """Where prompts ended.

    Attributes:
        rungs: whose answer each prompt keeps, the number of rungs being the reference.
        spent: mean prices of the calls on the way, in calls of the reference.
    """

    rungs: IntArray
    spent: FloatArray


def walk(
    solution: Solution, profile: Profile, ladder: Sequence[Tier], prompts: IntArray
) -> Generator[list[Ask], None, Walked]:
    """Take every prompt up the ladder, all at once.

    The reference ends a walk and is not asked here. Prompts of which the same was seen share a
    node of the tree of beliefs, so that a wave takes as many decisions as there are nodes, however
    many prompts there are.

    Args:
        ladder: the models of the solution's rungs.
    """
    tree = _Frontier.start(solution)
    node = np.zeros(prompts.size, dtype=np.int64)
    ended = np.full(prompts.size, len(ladder), dtype=np.int64)
    spent = np.zeros(prompts.size)
    going = np.arange(prompts.size)
    while going.size:
        actions = tree.actions()[node[going]]
        kept, last = actions == ACCEPT, actions == GO + len(ladder)
        ended[going[kept]] = tree.at[node[going[kept]]]
        spent[going[last]] += 1.0
        going, actions = going[~(kept | last)], actions[~(kept | last)]
        asks, moves = [], tree.moves(node[going], actions)
        for (rung, verifies), mine in moves:
            tier = ladder[rung]
            call = tier.verifier if verifies and tier.verifier else tier.model
            asks.append(Ask(call.name, prompts[going[mine]]))
        if asks:
            yield asks
        bins = np.zeros(going.size, dtype=np.int64)
        for (move, mine), ask in zip(moves, asks, strict=True):
            noise, price = _look(solution, move)
            spent[going[mine]] += price
            if noise is not None:
                bins[mine] = noise.bins.place(profile.confidences(ask.model)[ask.prompts])
        tree, node[going] = tree.grown(node[going], actions, bins)
    return Walked(ended, spent)


def _look(solution: Solution, move: Move) -> tuple[Noise | None, float]:
    """What is seen by a move, and its price."""
    place, verifies = move
    rung = solution.rungs[place]
    if verifies and rung.verification is not None:
        return rung.verification, rung.verification.price
    return rung.own, rung.price


@dataclass(frozen=True, slots=True, eq=False)
class _Frontier:
    """The nodes at which prompts stand.

    Attributes:
        beliefs: at each node; shape (m, n_states).
        at: the rung that has answered last, -1 before the first; shape (m,).
        verifiable: whether its answer can still be verified; shape (m,).
    """

    solution: Solution
    beliefs: FloatArray
    at: IntArray
    verifiable: BoolArray

    @staticmethod
    def start(solution: Solution) -> _Frontier:
        """One node, at which nothing is known."""
        return _Frontier(solution, solution.start(), np.array([-1]), np.zeros(1, dtype=np.bool_))

    def actions(self) -> IntArray:
        """The best action at each node."""
        actions = np.zeros(self.at.size, dtype=np.int64)
        for at in np.unique(self.at).tolist():
            for verifiable in (False, True):
                mine = (self.at == at) & (self.verifiable == verifiable)
                if mine.any():
                    decided, _ = self.solution.decide(self.beliefs[mine], at, verifiable=verifiable)
                    actions[mine] = decided
        return actions

    def moves(self, nodes: IntArray, actions: IntArray) -> list[tuple[Move, IntArray]]:
        """Which prompts take which move, by rung.

        Args:
            nodes: where each prompt stands.
            actions: what each does, `VERIFY` or GO + rung.
        """
        verifies = actions == VERIFY
        rungs = np.where(verifies, self.at[nodes], actions - GO)
        keys = 2 * rungs + verifies
        return [
            ((key // 2, bool(key % 2)), np.flatnonzero(keys == key))
            for key in np.unique(keys).tolist()
        ]

    def grown(
        self, nodes: IntArray, actions: IntArray, bins: IntArray
    ) -> tuple[_Frontier, IntArray]:
        """The nodes that follow upon what was seen, and where each prompt stands then."""
        keys, first, node = np.unique(
            nodes * (BINS + 1) + bins, return_index=True, return_inverse=True
        )
        parents, seen = nodes[first], bins[first]
        beliefs, at = self.beliefs[parents], self.at[parents]
        verifiable = np.ones(keys.size, dtype=np.bool_)
        for move, mine in self.moves(parents, actions[first]):
            noise, _ = _look(self.solution, move)
            if noise is not None:
                beliefs[mine] = updated(beliefs[mine], noise, seen[mine])
            at[mine], verifiable[mine] = move[0], not move[1]
        return _Frontier(self.solution, beliefs, at, verifiable), node
