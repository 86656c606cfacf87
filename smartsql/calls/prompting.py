"""Keys and requests of calls, with the earlier answers that go into their prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa

from smartsql.calls.book import Book
from smartsql.calls.materials import Material
from smartsql.calls.recipes import Recipe
from smartsql.calls.typed import form_of
from smartsql.gateway import Request
from smartsql.types import IntArray

KeepPrompts = Callable[[Iterable[tuple[bytes, str]]], None]
"""Called with prompts that are about to be sent, under their keys."""


class Prompting:
    """Keys and prompts of the calls of one statement.

    A unit is one call: sample k of prompt i is unit k * n_prompts + i. Where there is one sample
    units are prompts.

    Args:
        keep: called with the prompts of all requests that are made, if anybody keeps them.
    """

    def __init__(self, book: Book, keep: KeepPrompts | None = None) -> None:
        self._keep = keep
        self._cells = book.cells
        self._recipes = book.recipes
        self._book = book
        self._n = len(book.cells.digests)

    def units(self, name: str, prompts: IntArray) -> IntArray:
        """All units of some prompts."""
        samples = self._recipes[name].samples
        return np.concatenate([prompts + k * self._n for k in range(samples)])

    def keys(self, name: str, units: Sequence[int]) -> list[bytes]:
        """Under which the answers of units are kept, beside the identity; 16 bytes each."""
        digests, recipe = self._cells.digests, self._recipes[name]
        if not recipe.is_derived:
            return [digests[unit] for unit in units]
        prompts = np.array(units, dtype=np.int64) % self._n
        found = self._book.materials(name, prompts)
        return [
            _key(digests[prompt], unit // self._n, material)
            for unit, prompt, material in zip(units, prompts.tolist(), found, strict=True)
        ]

    def requests(
        self, name: str, units: Sequence[int], offset: int
    ) -> list[tuple[tuple[str, ...], list[Request]]]:
        """The requests for units, by the labels among which the model is to choose.

        Args:
            offset: bits that are set in each request's index beside the unit.
        """
        groups = self._groups(name, units, offset)
        if self._keep is not None:
            sent = {request.index: request.prompt for _, some in groups for request in some}
            keys = zip(self.keys(name, units), units, strict=True)
            self._keep((key, sent[offset | unit]) for key, unit in keys)
        return groups

    def _groups(
        self, name: str, units: Sequence[int], offset: int
    ) -> list[tuple[tuple[str, ...], list[Request]]]:
        recipe, task = self._recipes[name], self._cells.task
        prompts = np.array(units, dtype=np.int64) % max(self._n, 1)
        texts = self._cells.texts.take(pa.array(prompts)).to_pylist()
        if not recipe.is_derived:
            rendered, form = task.rendered(texts), form_of(task, task.labels)
            pairs = zip(units, texts, rendered, strict=True)
            made = [Request(offset | u, text, sent, form) for u, text, sent in pairs]
            return [(task.labels, made)]
        groups: dict[tuple[str, ...], list[Request]] = {}
        for unit, text, material in zip(
            units, texts, self._book.materials(name, prompts), strict=True
        ):
            labels = self._labels(recipe, material)
            form = form_of(task, labels) if recipe.answers_rows else None
            request = Request(offset | unit, text, recipe.prompt(task, text, material), form)
            groups.setdefault(labels, []).append(request)
        return list(groups.items())

    def _labels(self, recipe: Recipe, material: Material) -> tuple[str, ...]:
        if recipe.kind == "hard":
            return material
        return recipe.labels if recipe.role in ("verifier", "step") else self._cells.task.labels


def _key(cell: bytes, sample: int, material: Iterable[str]) -> bytes:
    state = hashlib.blake2b(cell + sample.to_bytes(4, "big"), digest_size=16)
    for text in material:
        raw = text.encode("utf-8", "surrogatepass")
        state.update(len(raw).to_bytes(8, "big") + raw)
    return state.digest()
