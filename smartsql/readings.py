"""Raw answers as numbers: codes that agree or not, and positions of the texts users see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smartsql.tasks import Task
from smartsql.types import FAILED

MEMORY = 100_000
"""Distinct raw answers of which the reading is remembered."""

Codes = NDArray[np.int32]


class Readings:
    """Reads raw answers with a task's normaliser; equal answers share a code.

    Attributes:
        texts: answer texts as users see them, by position.
    """

    def __init__(self, task: Task) -> None:
        self._read = task.reader()
        self._codes: dict[str, int] = {}
        self._positions: dict[str, int] = {}
        self._seen: dict[str, tuple[int, int]] = {}

    @property
    def texts(self) -> list[str]:
        """Answer texts; `read` returns positions in this list."""
        return list(self._positions)

    def read(self, raw: Sequence[str | None]) -> tuple[Codes, Codes]:
        """Codes and text positions of raw answers, both of shape (n,).

        None and what the normaliser cannot use have the code `FAILED` and the position -1.
        """
        seen = self._seen
        pairs = [(seen.get(text) or self._new(text)) if text else self._new(text) for text in raw]
        both = np.array(pairs, dtype=np.int32).reshape(-1, 2)
        return both[:, 0], both[:, 1]

    def _new(self, text: str | None) -> tuple[int, int]:
        reading = None if text is None else self._read(text)
        if text is None or reading is None:
            return FAILED, -1
        pair = (
            self._codes.setdefault(reading.key, len(self._codes)),
            self._positions.setdefault(reading.text, len(self._positions)),
        )
        if len(self._seen) >= MEMORY:
            self._seen.clear()
        self._seen[text] = pair
        return pair
