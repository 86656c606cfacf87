"""Texts as rows of numbers: hashed words, pairs of words and fragments of words."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

VERSION = 1
"""Of the features; weights that were learned from others mean nothing here."""
WORD = r"(?u)\b\w+\b"
REMEMBERED = 40_000
"""Texts whose features are kept; more would take more memory than time."""


def load() -> None:
    """Import what features need: seconds the first time, which belong to no answer's cost."""
    import scipy.sparse  # noqa: F401
    import sklearn.feature_extraction.text
    import sklearn.preprocessing  # noqa: F401


def featured(texts: Sequence[str], bits: int) -> csr_matrix:
    """Hashed features of texts, shape (n_texts, 2 ** (bits + 1)).

    Words and pairs of words in one group, runs of four characters within words in the other
    (they see through inflection, compounds and misspellings, and serve languages without
    spaces). Counts are sublinear; each group has length one, so that a long text speaks no
    louder than a short one and fragments no louder than words.
    """
    import numpy as np
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.preprocessing import normalize

    # a cell may hold half a surrogate pair, which has no UTF-8 to hash
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    groups = []
    for analyzer, runs in (("word", (1, 2)), ("char_wb", (4, 4))):
        hashing = HashingVectorizer(
            analyzer=analyzer,
            ngram_range=runs,
            token_pattern=WORD if analyzer == "word" else None,
            n_features=2**bits,
            alternate_sign=False,
            norm=None,
        )
        counts = hashing.transform(clean)
        counts.data = 1.0 + np.log(counts.data)
        groups.append(normalize(counts, copy=False))
    features: csr_matrix = hstack(groups, format="csr")
    return features


class Featured:
    """`featured` with a memory: a model that is trained again and again meets the same texts."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self._rows: dict[str, int] = {}
        self._known: csr_matrix | None = None
        self._lock = Lock()

    def __call__(self, texts: Sequence[str]) -> csr_matrix:
        """Features of texts, shape (n_texts, 2 ** (bits + 1))."""
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._rows]
            if len(self._rows) + len(new) > REMEMBERED:
                return featured(texts, self.bits)
            if new:
                self._remember(new)
            assert self._known is not None
            return self._known[[self._rows[text] for text in texts]]

    def _remember(self, texts: list[str]) -> None:
        from scipy.sparse import vstack

        features = featured(texts, self.bits)
        for text in texts:
            self._rows[text] = len(self._rows)
        known = self._known
        self._known = features if known is None else vstack([known, features], format="csr")
