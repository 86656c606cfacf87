"""The distinct prompts of a call with their weights, built from chunks as they arrive.

Texts are compared as bytes and never decoded, so every string DuckDB can hold survives; only what
is sent must be UTF-8, which tables of Arrow need not be (`readable`). Chunks
are merged into sorted runs of 64-bit hashes whenever the unmerged part has grown as large as the
merged one: memory is that of the distinct prompts, and each prompt is moved O(log n) times. Equal
hashes of different prompts are found at every merge and cured by hashing anew with a salt, so
a hash that occurs in a finished table stands for exactly one prompt.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from smartsql.types import IntArray

MIN_RUN_ROWS = 65_536
MIN_RUN_BYTES = 64 << 20
_MAX = np.iinfo(np.int64).max


def one_array(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The values as a single array, copied only where there are several chunks or views."""
    if isinstance(values, pa.ChunkedArray):
        values = values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()
    return values.cast(pa.large_string()) if pa.types.is_string_view(values.type) else values


def as_bytes(texts: pa.Array) -> pa.Array:
    """Texts as large_binary over the same buffers."""
    return texts.cast(pa.binary()).cast(pa.large_binary()) if len(texts) else _NOTHING


def as_texts(values: pa.Array) -> pa.Array:
    """The reverse of `as_bytes`; not validated, see `readable`."""
    return pa.Array.from_buffers(
        pa.large_string(), len(values), values.buffers(), values.null_count, values.offset
    )


def readable(prompts: pa.Array, weights: IntArray) -> tuple[pa.Array, IntArray, pa.Array | None]:
    """Prompts that models can be sent.

    DuckDB does not look into the strings of an Arrow table. What in them is no UTF-8 becomes the
    replacement character, and prompts that are then equal become one.

    Returns:
        Distinct texts, rows for each, and the place of each prompt among them; None where all
        stay what and where they are.
    """
    try:
        prompts.validate(full=True)
    except pa.ArrowInvalid:
        raw = as_bytes(prompts).to_pylist()
        texts = pa.array([text.decode("utf-8", "replace") for text in raw], pa.large_string())
        encoded = texts.dictionary_encode()
        places = encoded.indices.to_numpy()
        merged = np.bincount(places, weights).astype(np.int64)
        return encoded.dictionary, merged, pa.array(places)
    return prompts, weights, None


def hashes(values: pa.Array, salt: int) -> IntArray:
    """64-bit hashes of binary values, keyed for this process by the interpreter; shape (n,)."""
    items = values.to_numpy(zero_copy_only=False)
    if salt:
        tail = salt.to_bytes(8, "little")
        return np.fromiter((hash(item + tail) for item in items), np.int64, len(values))
    return np.fromiter(map(hash, items), np.int64, len(values))


_NOTHING = pa.array([], pa.large_binary())


class PromptTable:
    """Distinct prompts and how many rows carry each. Not thread-safe: the owner locks."""

    def __init__(self) -> None:
        self.salt = 0
        self.n_rows = 0
        self._values = _NOTHING
        self._hashes: IntArray = np.empty(0, np.int64)
        self._weights: IntArray = np.empty(0, np.int64)
        self._pending: list[tuple[pa.Array, IntArray, IntArray]] = []
        self._pending_rows = 0
        self._pending_bytes = 0

    def add(
        self, values: pa.Array, keys: IntArray, salt: int, weights: IntArray | None = None
    ) -> None:
        """Add prompts.

        Args:
            values: prompts as large_binary without nulls.
            keys: their hashes under `salt`, made outside the owner's lock.
            salt: the salt that was current then; if it has changed, keys are made again.
            weights: rows for each; 1 if None.
        """
        if not len(values):
            return
        if salt != self.salt:
            keys = hashes(values, self.salt)
        weights = np.ones(len(values), np.int64) if weights is None else weights
        self.n_rows += int(weights.sum())
        self._pending.append((values, keys, weights))
        self._pending_rows += len(values)
        self._pending_bytes += values.nbytes
        if self._pending_rows >= max(MIN_RUN_ROWS, len(self._values)) or self._pending_bytes >= max(
            MIN_RUN_BYTES, self._values.nbytes
        ):
            self.merge()

    def merge(self) -> None:
        """Fold everything pending into the sorted run."""
        if not self._pending:
            return
        parts = [(self._values, self._hashes, self._weights), *self._pending]
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0
        values = pa.concat_arrays([part[0] for part in parts])
        keys = np.concatenate([part[1] for part in parts])
        weights = np.concatenate([part[2] for part in parts])
        del parts
        self._values = _NOTHING  # copied by now; two copies of the texts are enough
        while True:
            order = np.argsort(keys, kind="stable")
            ordered = keys[order]
            is_first = np.append(True, ordered[1:] != ordered[:-1])
            starts = np.flatnonzero(is_first)
            if not _has_collision(values, order, is_first, starts):
                break
            self.salt += 1
            keys = hashes(values, self.salt)
        self._values = values.take(pa.array(order[starts]))
        self._hashes = ordered[starts]
        self._weights = np.add.reduceat(weights[order], starts)

    def finish(self) -> tuple[pa.Array, IntArray, PromptIndex]:
        """Distinct prompts (large_string), rows for each, and the way back from prompt to place."""
        self.merge()
        texts = as_texts(self._values)
        self._values = _NOTHING
        return texts, self._weights, PromptIndex(self._hashes, self.salt)


def _has_collision(
    values: pa.Array, order: IntArray, is_first: NDArray[np.bool_], starts: IntArray
) -> bool:
    """Whether two different values have the same hash."""
    repeats = np.flatnonzero(~is_first)
    if not repeats.size:
        return False
    owners = starts[np.cumsum(is_first)[repeats] - 1]
    # one slice at a time: millions of long repeats must not be copied at once
    for at in range(0, repeats.size, MIN_RUN_ROWS):
        piece = slice(at, at + MIN_RUN_ROWS)
        mine = values.take(pa.array(order[repeats[piece]]))
        theirs = values.take(pa.array(order[owners[piece]]))
        if not pc.all(pc.equal(mine, theirs)).as_py():
            return True
    return False


class PromptIndex:
    """Place of each prompt in a finished table, found by its hash. Immutable, so thread-safe."""

    def __init__(self, keys: IntArray, salt: int) -> None:
        self.salt = salt
        self._n = keys.size
        self._keys = np.append(keys, _MAX)
        bits = max(4, min(24, int(keys.size).bit_length() + 1))
        self._shift = 64 - bits
        self._offset = 1 << (bits - 1)
        edges = (np.arange(1 << bits, dtype=np.int64) - self._offset) << self._shift
        self._start = np.searchsorted(keys, edges).astype(np.int64)

    def find(self, values: pa.Array) -> IntArray:
        """Place of each value (large_binary, no nulls); -1 where it is not in the table."""
        wanted = hashes(values, self.salt)
        place = self._start[(wanted >> self._shift) + self._offset]
        behind = np.flatnonzero(self._keys[place] < wanted)
        while behind.size:
            place[behind] += 1
            behind = behind[self._keys[place[behind]] < wanted[behind]]
        found = (place < self._n) & (self._keys[place] == wanted)
        return np.where(found, place, -1)
