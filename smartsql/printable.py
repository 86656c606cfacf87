"""Texts that others wrote (cells, models, endpoints), made harmless to look at.

A terminal obeys control characters: they move the cursor, rename the window, hide what was
printed. Marks of writing direction show a text in another order than it has. Both are shown as
signs instead; nothing else is changed.
"""

from __future__ import annotations

import re

_HARMFUL = re.compile("\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_PICTURES = 0x2400
"""Where the signs for control characters begin in Unicode; one column wide each."""


def plain(text: str) -> str:
    """A text without characters that a terminal obeys; line ends and tabs stay."""
    return _HARMFUL.sub(_sign, text)


_SECRET = re.compile(
    r"""\b(bearer_token|token|secret|password|passwd|api_?key|key_id|session_token)
        (\s+|\s*:?=\s*)(?:'(?:[^']|'')*(?:'|\Z)|\$(\w*)\$.*?(?:\$\3\$|\Z))""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


def discreet(text: str) -> str:
    """A text about statements, without what those that create secrets hold."""
    return _SECRET.sub(r"\1\2'...'", text)


def _sign(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(_PICTURES + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"
