"""Callable models that tests name in configuration files."""

from __future__ import annotations

import hashlib


def _draw(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def big(texts: list[str]) -> list[str]:
    """The reference: a fair coin for each text."""
    return ["good" if _draw(text) % 2 else "bad" for text in texts]


def small(texts: list[str]) -> list[str]:
    """Agrees with `big` on about 97 of 100 texts."""
    said = big(texts)
    return [
        ("bad" if answer == "good" else "good") if _draw("small" + text) % 100 < 3 else answer
        for text, answer in zip(texts, said, strict=True)
    ]


def odd(texts: list[str]) -> list[str | None]:
    """A reference that fails one text."""
    return [None if text == "review 7" else "good" for text in texts]


def tone(texts: list[str]) -> list[str]:
    """Positive where a text has an even number of letters."""
    return ["negative" if len(text) % 2 else "positive" for text in texts]


def echo(texts: list[str]) -> list[str]:
    """Shows what it was asked."""
    return [text + "!" for text in texts]
