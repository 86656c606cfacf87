"""Raw answers as numbers: codes that agree or not, and positions of the texts users see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
        texts: answer texts as users see them; `read` returns positions in this list.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._readers = {task.labels: task.reader()}
        self._codes: dict[str, int] = {}
        self._positions: dict[str, int] = {}
        self.texts: list[str] = []
        self._seen: dict[tuple[str, ...], dict[str, tuple[int, int]]] = {}

    def read(
        self, raw: Sequence[str | None], labels: tuple[str, ...] | None = None
    ) -> tuple[Codes, Codes]:
        """Codes and text positions of raw answers, both of shape (n,).

        None and what the normaliser cannot use have the code `FAILED` and the position -1.

        Args:
            labels: those that may be answered, if not all of the task's.
        """
        among = self._task.labels if labels is None else labels
        seen = self._seen.setdefault(among, {})
        pairs = [
            (seen.get(text) or self._new(text, among)) if text else self._new(text, among)
            for text in raw
        ]
        both = np.array(pairs, dtype=np.int32).reshape(-1, 2)
        return both[:, 0], both[:, 1]

    def _new(self, text: str | None, among: tuple[str, ...]) -> tuple[int, int]:
        if among not in self._readers:
            self._readers[among] = replace(self._task, labels=among).reader()
        reading = None if text is None else self._readers[among](text)
        if text is None or reading is None:
            return FAILED, -1
        position = self._positions.setdefault(reading.text, len(self.texts))
        if position == len(self.texts):
            self.texts.append(reading.text)
        pair = self._codes.setdefault(reading.key, len(self._codes)), position
        seen = self._seen[among]
        if len(seen) >= MEMORY:
            seen.clear()
        seen[text] = pair
        return pair
