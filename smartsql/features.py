"""Figures about texts and answers that cost no call: length, digits, words that both share.

They are evidence for routing only: whatever they say, they move money and never the promise. Each
is a whole number from 0 to 255 by a fixed scale, so that it can be kept in the ledger and gives the
same decisions on every machine.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from smartsql.profile import Features
from smartsql.types import FloatArray, IntArray

NAMES = ("length", "words", "digits", "capitals", "marks", "repeated words")
ANSWER_NAMES = ("length", "words", "digits", "words in the text", "in the text")
"""Letters and digits, words, share that is digits, share of the words that the text has, whether it
has them in a row."""
SLICE = 2_000
"""Texts whose bytes are laid out at once: few enough for a processor's cache."""
_LOG_SCALE = 14.0
"""Steps for each doubling: 255 is a text of about 300 kB."""
_TEXT_BITS = np.uint64(16)
"""Bits of a text's number within its slice."""
_APART = re.compile(r"\W+")
_LOOKED_FOR = 200
"""Words of an answer that are looked for in its text."""
_LONGEST = 64
"""Bytes of a word that tell it from others."""


def features(texts: pa.Array | Sequence[str]) -> Features:
    """The figures of each text.

    Args:
        texts: strings without nulls; shape (n,).
    """
    whole = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.large_string())
    parts = [
        _figures(whole.slice(start, SLICE).cast(pa.large_string()).cast(pa.large_binary()))
        for start in range(0, len(whole), SLICE)
    ]
    empty = np.zeros((0, len(NAMES)), dtype=np.uint8)
    return Features(NAMES, np.concatenate([empty, *parts]))


def answer_figures(answers: Sequence[str | None], texts: Sequence[str]) -> NDArray[np.uint8]:
    """What answers in words of their own say beside their texts.

    Case and marks play no part, so that it does not matter how carefully an answer was tidied.

    Args:
        answers: None where there is none; shape (n,).
        texts: what each is about; shape (n,).

    Returns:
        One column for each of `ANSWER_NAMES`; shape (n, k).
    """
    told = [_told(answer, text) for answer, text in zip(answers, texts, strict=True)]
    figures = np.array(told, dtype=np.float64).reshape(-1, len(ANSWER_NAMES))
    figures[:, :2] = _logarithm(figures[:, :2])
    figures[:, 2:] *= 255.0
    return np.asarray(np.minimum(np.rint(figures), 255.0).astype(np.uint8))


def _told(answer: str | None, text: str) -> tuple[int, int, float, float, bool]:
    """The figures of an answer, before they are brought to scale."""
    words = _APART.sub(" ", answer.lower()).split() if answer else []
    if not words:
        return 0, 0, 0.0, 0.0, False
    letters = "".join(words)
    digits = 0 if letters.isalpha() else sum(map(str.isdigit, letters))
    shared, whole = _shared(words, text.lower())
    return len(letters), len(words), digits / len(letters), shared, whole


def _shared(words: list[str], text: str) -> tuple[float, bool]:
    """Share of the first words that the text has, and whether it has all words in a row."""
    words_seen = words[:_LOOKED_FOR]
    # a word of the text is a part of it, which is quicker to see
    likely = [word for word in words_seen if word in text]
    if not likely:
        return 0.0, False
    there = _APART.sub(" ", text).split()
    known = set(there)
    shared = sum(word in known for word in likely) / len(words_seen)
    return shared, shared == 1.0 and f" {' '.join(words)} " in f" {' '.join(there)} "


def packed(features: Features) -> bytes:
    """The figures as bytes, compressed column by column; `unpacked` reads them back."""
    columns = np.ascontiguousarray(features.values.T).tobytes()
    return json.dumps(features.names).encode() + b"\0" + zlib.compress(columns, 1)


def unpacked(raw: bytes) -> Features:
    """What `packed` was given.

    Raises:
        ValueError: these are no packed figures.
    """
    head, _, body = raw.partition(b"\0")
    try:
        names = tuple(json.loads(head))
        columns = np.frombuffer(zlib.decompress(body), dtype=np.uint8)
        return Features(names, np.ascontiguousarray(columns.reshape(len(names), -1).T))
    except (ValueError, zlib.error) as error:
        raise ValueError(f"these are no packed figures about texts: {error}") from error


def _figures(texts: pa.Array) -> NDArray[np.uint8]:
    """The figures of some texts, as bytes of UTF-8."""
    _, offsets_buffer, data = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, dtype=np.int64)
    offsets = offsets[texts.offset : texts.offset + len(texts) + 1]
    start, stop = int(offsets[0]), int(offsets[-1])
    raw = np.frombuffer(data, dtype=np.uint8)[start:stop] if data else np.zeros(0, np.uint8)
    at = offsets - start
    length = np.diff(at)
    words, distinct = _words(raw, at)
    shares = [_share(table, raw, at, length) for table in (_DIGITS, _CAPITALS, _MARKS)]
    repeated = (words - distinct) / np.maximum(words, 1)
    columns = [_logarithm(length), _logarithm(words), *shares, repeated * 255.0]
    return np.column_stack([np.minimum(np.rint(c), 255.0) for c in columns]).astype(np.uint8)


def _logarithm(counts: IntArray | FloatArray) -> FloatArray:
    return np.asarray(_LOG_SCALE * np.log2(1.0 + counts))


def _share(
    table: NDArray[np.bool_], raw: NDArray[np.uint8], at: IntArray, length: IntArray
) -> FloatArray:
    """Share of the bytes of a kind in each text, times 255."""
    counts = np.zeros(length.size)
    filled = length > 0
    if raw.size:
        counts[filled] = np.add.reduceat(table[raw], at[:-1][filled], dtype=np.int64)
    return np.asarray(255.0 * counts / np.maximum(length, 1))


def _words(raw: NDArray[np.uint8], at: IntArray) -> tuple[IntArray, IntArray]:
    """Words and distinct words of each text, whatever their case."""
    n = at.size - 1
    inside = _WORD[raw]
    begins = inside.copy()
    begins[1:] &= ~inside[:-1]
    # a word ends with its text
    first = at[:-1][np.diff(at) > 0]
    begins[first] |= inside[first]
    starts = np.flatnonzero(begins)
    text = np.searchsorted(at, starts, side="right") - 1
    words = np.bincount(text, minlength=n)
    if not starts.size:
        return words, words
    word = np.cumsum(begins) - 1
    place = np.minimum(np.arange(raw.size) - starts[np.maximum(word, 0)], _LONGEST - 1)
    value = np.where(inside, _LOWER[raw] * _POWERS[np.maximum(place, 0)], np.uint64(0))
    # the text's number before the upper bits of the word's hash: one sort brings equals together
    keys = np.add.reduceat(value, starts) >> _TEXT_BITS
    keys |= text.astype(np.uint64) << (np.uint64(64) - _TEXT_BITS)
    keys.sort()
    new = np.ones(keys.size, dtype=np.bool_)
    new[1:] = keys[1:] != keys[:-1]
    owners = (keys[new] >> (np.uint64(64) - _TEXT_BITS)).astype(np.int64)
    return words, np.bincount(owners, minlength=n)


def _table(characters: bytes) -> NDArray[np.bool_]:
    table = np.zeros(256, dtype=np.bool_)
    table[list(characters)] = True
    return table


_DIGITS = _table(b"0123456789")
_CAPITALS = _table(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_LETTERS = _table(b"abcdefghijklmnopqrstuvwxyz" + bytes(range(128, 256))) | _CAPITALS
_WORD = _LETTERS | _DIGITS
_MARKS = ~(_WORD | _table(b" \t\r\n"))
_LOWER = np.where(_CAPITALS, np.arange(256) + 32, np.arange(256)).astype(np.uint64)
_POWERS = np.cumprod(np.full(_LONGEST, 0x9E3779B97F4A7C15, dtype=np.uint64), dtype=np.uint64)
