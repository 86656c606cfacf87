"""A key of an endpoint, held so that nothing shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

MASK = "[key]"
"""Stands where somebody else's text had a key."""
SHORTEST_PART = 12
"""Characters of a key that are masked where an endpoint quotes only a part of it."""


class Key:
    """A key that shows itself nowhere: not printed, not listed, not pickled.

    Args:
        origin: where it comes from, for people.
        reveal: gives the key.
    """

    __slots__ = ("origin", "reveal")

    def __init__(self, origin: str, reveal: Callable[[], str]) -> None:
        self.origin = origin
        self.reveal = reveal

    @staticmethod
    def of(value: str, origin: str = "an argument") -> Key:
        """A key that is known."""
        return Key(origin, lambda: value)

    def masked(self, text: str, shortest: int = SHORTEST_PART) -> str:
        """A text without the key and without longer parts of it."""
        value = self.reveal()
        return masked(text, value, MASK, shortest) if value else text

    def is_in(self, text: str) -> bool:
        """Whether a text holds the whole key."""
        value = self.reveal()
        return bool(value) and value in text

    def __repr__(self) -> str:
        return f"<key from {self.origin}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"the key from {self.origin} cannot be copied or pickled.")


def masked(text: str, private: str, mask: str, shortest: int) -> str:
    """A text in which all that it quotes of a private one is replaced.

    Args:
        shortest: characters that count as a quotation.
    """
    if len(private) > 3:
        text = text.replace(private, mask)
    block, done, at = max(1, shortest // 2), 0, 0
    parts: list[str] = []
    # a quotation holds a whole block, wherever it begins, so only blocks are looked for
    while at + block <= len(text):
        start, end = at, at + block
        if text[start:end] in private:
            while start > done and text[start - 1 : end] in private:
                start -= 1
            while end < len(text) and text[start : end + 1] in private:
                end += 1
            if end - start >= shortest:
                parts += [text[done:start], mask]
                done = end
                at = end - block
        at += block
    return "".join([*parts, text[done:]])
