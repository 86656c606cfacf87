"""Parameters of a statement: `?`, `?2`, `$2`, `$name`.

They are found without sqlglot's tokenizer, which takes `$` up to the next `$` for the tag of a
dollar-quoted string if no white space stands between them, as in `f(x,$2)=$3`, and reads `?::`
as one sign. With white space around every parameter it reads all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count

_START = r"[^\x00-\x40\x5b-\x5e\x60\x7b-\x7f\s]"
_WORD = r"[^\x00-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f\s]"
_QUOTED_NAME = r'"(?:[^"]|"")*"'
_LEXEME = re.compile(
    rf"""
      [eE]'(?:[^'\\]|\\.|'')*'  |  '(?:[^']|'')*'  |  {_QUOTED_NAME}
    | \$(?P<tag>(?:{_START}{_WORD}*)?)\$ .*? \$(?P=tag)\$
    | --[^\n\r]*  |  (?P<comment>/\*)
    | {_START}(?:{_WORD}|\$)*
    | (?P<parameter>\?\d*|\$\d+|\${_START}{_WORD}*|\${_QUOTED_NAME})
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


def spaced_parameters(text: str) -> str:
    """The text with white space around its parameters; `?2` becomes `$2`."""
    return _with_parameters(text, lambda mark: mark if mark == "?" else mark.replace("?", "$"))


def numbered_parameters(text: str) -> str:
    """The text of one statement with `?` written as `$1`, `$2`, .. so that it may be rearranged."""
    numbers = count(1)
    return _with_parameters(text, lambda mark: f"${next(numbers)}" if mark == "?" else mark)


def _with_parameters(text: str, write: Callable[[str], str]) -> str:
    """The text with its parameters written anew, each as a word of its own."""
    pieces = []
    at = done = 0
    while (found := _LEXEME.search(text, at)) is not None:
        at = _end_of_comment(text, found.end()) if found["comment"] else found.end()
        if found["parameter"]:
            start, end = found.span()
            before = "" if text[done:start][-1:].isspace() else " "
            after = "" if text[end : end + 1].isspace() else " "
            pieces += [text[done:start], before, write(found["parameter"]), after]
            done = end
    return "".join([*pieces, text[done:]])


def _end_of_comment(text: str, at: int) -> int:
    """Where a comment ends whose beginning ends at `at`; comments nest."""
    depth = 1
    while depth and (edge := _COMMENT_EDGE.search(text, at)) is not None:
        depth += 1 if edge.group() == "/*" else -1
        at = edge.end()
    return at if depth == 0 else len(text)
