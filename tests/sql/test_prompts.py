"""The table of distinct prompts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from smartsql.sql import prompts as module
from smartsql.sql.prompts import PromptTable, as_bytes, hashes


def filled(texts: list[str], size: int) -> PromptTable:
    table = PromptTable()
    for start in range(0, len(texts), size):
        values = as_bytes(pa.array(texts[start : start + size]))
        table.add(values, hashes(values, table.salt), table.salt)
    return table


def check(texts: list[str], size: int) -> None:
    found, weights, index = filled(texts, size).finish()
    assert dict(zip(found.to_pylist(), weights.tolist(), strict=True)) == Counter(texts)
    places = index.find(as_bytes(pa.array(texts)))
    assert found.take(pa.array(places)).to_pylist() == texts


@pytest.mark.parametrize("distinct", [1, 7, 5000])
def test_prompts_are_counted_and_found_again(
    distinct: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MIN_RUN_ROWS", 64)
    generator = np.random.default_rng(1)
    check([f"prompt {i}" for i in generator.integers(0, distinct, 6000)], 100)


def test_prompts_with_equal_hashes_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = module.hashes

    def weak(values: pa.Array, salt: int) -> np.ndarray:
        if salt >= 2:
            return honest(values, salt)
        return np.array([len(value) for value in values.to_pylist()], np.int64)

    monkeypatch.setattr(module, "MIN_RUN_ROWS", 32)
    monkeypatch.setattr(module, "hashes", weak)
    texts = [f"{i % 90:03d}" for i in range(400)]
    table = PromptTable()
    for start in range(0, 400, 10):
        values = as_bytes(pa.array(texts[start : start + 10]))
        table.add(values, weak(values, 0), 0)
    found, weights, index = table.finish()
    assert index.salt == 2
    assert dict(zip(found.to_pylist(), weights.tolist(), strict=True)) == Counter(texts)
    assert found.take(pa.array(index.find(as_bytes(pa.array(texts))))).to_pylist() == texts


def test_unknown_prompts_are_not_found() -> None:
    _, _, index = filled(["a", "b"], 2).finish()
    assert (index.find(as_bytes(pa.array(["c", "", "aa"]))) == -1).all()


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_all_text_types_are_read(kind: pa.DataType) -> None:
    array = module.one_array(pa.chunked_array([pa.array(["a", None, "é"]).cast(kind)]))
    assert as_bytes(array.drop_null()).to_pylist() == [b"a", "é".encode()]
