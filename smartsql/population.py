"""The rows of one call: distinct prompts with weights, in a secret random order.

The guarantee rests on this order alone. It depends on the set of prompts, their weights and the
seed, never on how the table is stored, sorted or scanned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartsql.types import IntArray

DIGEST_BYTES = 16


def digest(text: str) -> bytes:
    """128-bit BLAKE2b digest of a text; lone surrogates are allowed."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def digests(texts: Sequence[str]) -> list[bytes]:
    """`digest` of each text."""
    hashed, size = hashlib.blake2b, DIGEST_BYTES  # looked up once: there may be millions
    return [
        hashed(text.encode("utf-8", "surrogatepass"), digest_size=size).digest() for text in texts
    ]


@dataclass(frozen=True, slots=True)
class Population:
    """The rows of a call.

    Attributes:
        weights: rows that carry each distinct prompt; shape (n_prompts,), at least 1.
        order: prompt of each row in random order; shape (n_rows,).
        first: position in `order` at which each prompt occurs first; shape (n_prompts,).
        last: position in `order` at which each prompt occurs last; shape (n_prompts,).
        entropy: seed of whatever is drawn beyond the order; as secret as the order.
    """

    weights: IntArray
    order: IntArray
    first: IntArray
    last: IntArray
    entropy: int = 0

    @property
    def n_rows(self) -> int:
        """Rows of the call, NULL prompts left out."""
        return int(self.order.size)

    @property
    def n_prompts(self) -> int:
        """Distinct prompts."""
        return int(self.weights.size)

    def prompts_between(self, start: int, stop: int) -> IntArray:
        """Distinct prompts among the rows `start` to `stop` of the order, ascending."""
        return np.unique(self.order[start:stop])

    @staticmethod
    def shuffled(
        digests: Sequence[bytes] | NDArray[np.uint64], weights: IntArray, seed: int
    ) -> Population:
        """The population in the order of `seed`.

        Rows are laid out by digest, so that storage order plays no part, and then permuted by
        the raw stream of PCG64, which NumPy keeps stable over versions.

        Args:
            digests: one 16-byte digest for each distinct prompt, or the same as an array of
                shape (n_prompts, 2).
            weights: rows for each prompt; shape (n_prompts,).
            seed: any non-negative integer.
        """
        halves = as_halves(digests)
        canonical = np.lexsort((halves[:, 1], halves[:, 0]))
        weights = np.ascontiguousarray(weights, dtype=np.int64)
        rows = np.repeat(canonical, weights[canonical])
        stream = np.random.PCG64(seed)
        keys = stream.random_raw(rows.size)
        entropy = int(stream.random_raw())
        return Population.in_order(rows[np.argsort(keys, kind="stable")], weights, entropy)

    @staticmethod
    def in_order(order: IntArray, weights: IntArray, entropy: int = 0) -> Population:
        """The population with its rows in a given order (for methods that read tables in order)."""
        order = np.ascontiguousarray(order, dtype=np.int64)
        positions = np.arange(order.size, dtype=np.int64)
        first = np.full(weights.size, order.size, dtype=np.int64)
        last = np.full(weights.size, -1, dtype=np.int64)
        first[order[::-1]] = positions[::-1]
        last[order] = positions
        return Population(np.asarray(weights, dtype=np.int64), order, first, last, entropy)


def as_halves(digests: Sequence[bytes] | NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Digests as two big-endian 64-bit numbers each; shape (n, 2)."""
    if isinstance(digests, np.ndarray):
        return digests.reshape(-1, 2)
    return np.frombuffer(b"".join(digests), dtype=">u8").reshape(-1, 2).astype(np.uint64)
