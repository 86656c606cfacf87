from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from smartsql import features as module
from smartsql.features import ANSWER_NAMES, NAMES, answer_figures, features


def words_of(text: str) -> list[bytes]:
    kept = bytes(b if b >= 128 or bytes([b]).isalnum() else 32 for b in text.encode())
    return [word.lower() if word.isascii() else word for word in kept.split()]


def test_figures_of_a_text_are_those_that_a_reader_would_count() -> None:
    found = features(["Buy 2, get 2 FREE"]).values[0].tolist()
    counted = dict(zip(NAMES, found, strict=True))
    assert counted["digits"] == round(255 * 2 / 17)
    assert counted["capitals"] == round(255 * 5 / 17)
    assert counted["marks"] == round(255 * 1 / 17)
    assert counted["repeated words"] == round(255 * 1 / 5)
    assert counted["words"] == round(14 * np.log2(6))
    assert counted["length"] == round(14 * np.log2(18))


@given(st.lists(st.text(alphabet="ab AB1é.,\n", max_size=12), max_size=8))
def test_words_are_counted_whatever_stands_beside_them(texts: list[str]) -> None:
    values = features(texts).values
    assert values.shape == (len(texts), len(NAMES))
    for text, row in zip(texts, values, strict=True):
        words = [bytes(b + 32 if 65 <= b <= 90 else b for b in w) for w in words_of(text)]
        assert row[1] == round(14 * np.log2(1 + len(words)))
        assert row[5] == round(255 * (len(words) - len(set(words))) / max(1, len(words)))


def test_a_slice_of_an_array_gives_the_figures_of_its_own_texts(monkeypatch) -> None:
    texts = [f"text {i} " * (i % 7) for i in range(40)]
    whole = features(texts).values
    assert (features(pa.array(texts).slice(5, 20)).values == whole[5:25]).all()
    monkeypatch.setattr(module, "SLICE", 7)
    assert (features(pa.array(texts)).values == whole).all()


def test_answers_are_counted_beside_their_texts_whatever_their_case_and_marks() -> None:
    text = "Basketball Shorts for Men, quick-dry"
    answers = ["basketball shorts", "Quick Dry!", "Men Shorts", "shorts for women", "", None]
    found = answer_figures(answers, [text] * len(answers))
    whole = {"length": round(14 * np.log2(17)), "words": round(14 * np.log2(3)), "digits": 0}
    assert dict(zip(ANSWER_NAMES, found[0].tolist(), strict=True)) == whole | {
        "words in the text": 255,
        "in the text": 255,
    }
    assert found[1, 3:].tolist() == [255, 255]
    assert found[2, 3:].tolist() == [255, 0]  # its words, in another order
    assert found[3, 3:].tolist() == [170, 0]
    assert not found[4:].any()
    assert answer_figures(["18 m"], ["the 18"])[0, 2:].tolist() == [170, 128, 0]
    assert answer_figures(["x " * 2_000_000], ["x"]).tolist() == [[255, 255, 0, 255, 0]]


def test_long_texts_are_capped() -> None:
    assert features(["x" * 2_000_000]).values[0, 0] == 255
