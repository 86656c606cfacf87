"""What can be seen in a text without a tokenizer: its parameters, and where statements end.

They are found without sqlglot's tokenizer, which takes `$` up to the next `$` for the tag of a
dollar-quoted string if no white space stands between them, as in `f(x,$2)=$3`, and reads `?::`
as one sign. With white space around every parameter it reads all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count

_START = r"[^\x00-\x40\x5b-\x5e\x60\x7b-\x7f\s]"
_WORD = r"[^\x00-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f\s]"
_QUOTED_NAME = r'"(?:[^"]|"")*"'
_LEXEME = re.compile(
    rf"""
      [eE]'(?:[^'\\]|\\.|'')*'  |  '(?:[^']|'')*'  |  {_QUOTED_NAME}
    | \$(?P<tag>(?:{_START}{_WORD}*)?)\$ .*? \$(?P=tag)\$
    | (?P<line>--[^\n\r]*)  |  (?P<comment>/\*)
    | {_START}(?:{_WORD}|\$)*
    | (?P<parameter>\?\d*|\$\d+|\${_START}{_WORD}*|\${_QUOTED_NAME})
    | (?P<end>;)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


def separated(text: str) -> list[str]:
    """The statements of a text, each with what separates it from the next; joined, the text.

    What holds no statement (blanks, comments, lone semicolons) stays with the one before it.
    """
    if ";" not in text:
        return [text] if text else []
    pieces: list[str] = []
    begun = 0
    for found, end in _lexemes(text):
        if found["end"]:
            pieces.append(text[begun:end])
            begun = end
    if begun < len(text):
        pieces.append(text[begun:])
    joined: list[str] = []
    for piece in pieces:
        if joined and (is_blank(piece) or is_blank(joined[-1])):
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def is_blank(text: str) -> bool:
    """Whether a text holds nothing but blanks, comments and semicolons."""
    at = 0
    for found, end in _lexemes(text):
        if not (found["line"] or found["comment"] or found["end"]):
            return False
        if text[at : found.start()].strip():
            return False
        at = end
    return not text[at:].strip()


def spaced_parameters(text: str) -> str:
    """The text with white space around its parameters; `?2` becomes `$2`."""
    return _with_parameters(text, lambda mark: mark if mark == "?" else mark.replace("?", "$"))


def numbered_parameters(text: str) -> str:
    """The text of one statement with `?` written as `$1`, `$2`, .. so that it may be rearranged."""
    numbers = count(1)
    return _with_parameters(text, lambda mark: f"${next(numbers)}" if mark == "?" else mark)


def with_values(text: str, values: Mapping[str, str]) -> str:
    """The text with parameters written as expressions: texts by name (`1`, `name`), if known."""

    def write(mark: str) -> str:
        value = values.get(_name(mark))
        return mark if value is None else f"({value})"

    return _with_parameters(text, write)


def used_parameters(text: str, parameters: object) -> object:
    """Those parameters that a part of a statement refers to, by name; others would be refused.

    Args:
        text: the part, its parameters numbered.
        parameters: of the whole statement, as DuckDB takes them: a sequence, a mapping or None.
    """
    names = {_name(found["parameter"]) for found, _ in _lexemes(text) if found["parameter"]}
    if isinstance(parameters, Mapping):
        known = {str(name): value for name, value in parameters.items()}
    elif isinstance(parameters, Sequence) and not isinstance(parameters, str):
        known = {str(place): value for place, value in enumerate(parameters, 1)}
    else:
        return parameters
    return {name: value for name, value in known.items() if name in names} or None


def _name(mark: str) -> str:
    """The name of a parameter as it is written, without sign and quotes."""
    return mark[1:].strip('"').replace('""', '"')


def _with_parameters(text: str, write: Callable[[str], str]) -> str:
    """The text with its parameters written anew, each as a word of its own."""
    if "?" not in text and "$" not in text:
        return text
    pieces = []
    done = 0
    for found, _ in _lexemes(text):
        if found["parameter"]:
            start, end = found.span()
            before = "" if text[done:start][-1:].isspace() else " "
            after = "" if text[end : end + 1].isspace() else " "
            pieces += [text[done:start], before, write(found["parameter"]), after]
            done = end
    return "".join([*pieces, text[done:]])


def _lexemes(text: str) -> Iterator[tuple[re.Match[str], int]]:
    """Strings, names, comments, parameters and semicolons, each with the place where it ends."""
    at = 0
    while (found := _LEXEME.search(text, at)) is not None:
        at = _end_of_comment(text, found.end()) if found["comment"] else found.end()
        yield found, at


def _end_of_comment(text: str, at: int) -> int:
    """Where a comment ends whose beginning ends at `at`; comments nest."""
    depth = 1
    while depth and (edge := _COMMENT_EDGE.search(text, at)) is not None:
        depth += 1 if edge.group() == "/*" else -1
        at = edge.end()
    return at if depth == 0 else len(text)
