"""What a learning model is taught in a statement: answers that are paid for, and nothing else."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from smartsql.calls.book import Book
from smartsql.gateway import Hint
from smartsql.profile import Profile
from smartsql.types import IntArray

MOST_LABELS = 20_000
MOST_HINTS = 10_000
"""More would take longer than they teach. The first by digest are as good as any."""


@dataclass(frozen=True, slots=True)
class Teaching:
    """What a learning model is trained on.

    Attributes:
        inputs: cells that the reference has answered.
        answers: its answers; those that agree are the same text.
        hints: answers of the model that is distilled.
        digest: of all this.
    """

    inputs: list[str]
    answers: list[str]
    hints: list[Hint]
    digest: str


def teaching(book: Book, profile: Profile, reference: str, distils: str | None) -> Teaching:
    """All reference answers that are known, and the answers of the model that is distilled.

    Args:
        distils: its name; None, or a model that takes no part, for none.
    """
    known = np.flatnonzero(profile.codes(reference) >= 0)[:MOST_LABELS]
    texts = _texts_by_code(profile.codes(reference)[known], book.answers_of(reference, known))
    answers = [texts[code] for code in profile.codes(reference)[known].tolist()]
    names = {model.name for model in profile.problem.models}
    if distils is None or distils not in names or distils == reference:
        digest = training_digest(_digests(book, known), answers)
        return Teaching(_inputs(book, known), answers, [], digest)
    codes = profile.codes(distils)
    # only what the reference may say teaches anything about it
    told = np.flatnonzero(np.isin(codes, np.array(sorted(texts), dtype=codes.dtype)))[:MOST_HINTS]
    said = [texts[code] for code in codes[told].tolist()]
    sure = profile.confidences(distils)[told].tolist()
    digest = training_digest(
        [*_digests(book, known), *_digests(book, told)], [*answers, *said], sure
    )
    hints = [Hint(*told) for told in zip(_inputs(book, told), said, sure, strict=True)]
    return Teaching(_inputs(book, known), answers, hints, digest)


def training_digest(
    digests: Sequence[bytes], answers: Sequence[str], confidences: Sequence[float] = ()
) -> str:
    """What a learning model was trained on, as a short text."""
    total = hashlib.blake2b(digest_size=16)
    for d, answer in zip(digests, answers, strict=True):
        total.update(d + answer.encode("utf-8", "surrogatepass") + b"\0")
    total.update(struct.pack(f"<{len(confidences)}d", *confidences))
    return total.hexdigest()


def _inputs(book: Book, prompts: IntArray) -> list[str]:
    found: list[str] = book.cells.texts.take(pa.array(prompts, pa.int64())).to_pylist()
    return found


def _digests(book: Book, prompts: IntArray) -> list[bytes]:
    digests = book.cells.digests
    return [digests[prompt] for prompt in prompts.tolist()]


def _texts_by_code(codes: np.ndarray, texts: Sequence[str]) -> dict[int, str]:
    """One text for answers that agree: the most frequent, the first of equals."""
    counts: dict[int, Counter[str]] = {}
    for code, text in zip(codes.tolist(), texts, strict=True):
        counts.setdefault(code, Counter())[text] += 1
    return {code: min(seen, key=lambda t: (-seen[t], t)) for code, seen in counts.items()}
