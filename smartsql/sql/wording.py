"""What the user wrote as the argument of a call, for reports, bills and previews.

DuckDB tells a call the text of its argument as it is bound: with casts and brackets, and, where
the normaliser moved the call, with a guard around it or with columns that only the moved query
has:

    CASE  WHEN ((k = CAST(3 AS BIGINT))) THEN ((review || '!')) ELSE CAST(NULL AS VARCHAR) END

This is found again among the arguments of the calls in the statements that were planned: equal
but for casts, brackets, qualifiers and letter case, without the guard if it is not with it, and
with any expression in place of a column of ours. It is for people only: nothing is decided by it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from sqlglot import exp

from smartsql.errors import QueryError
from smartsql.sql.normalise.calls.clauses import NAMES
from smartsql.sql.normalise.syntax.dialect import parse, sql
from smartsql.sql.normalise.text.words import Words

REMEMBERED_STATEMENTS = 16
"""Statements whose calls are recognised; a relation may be read long after it was planned."""

_OURS = re.compile(r"\b(?:__\w+\.)?__[a-z]+_?\d*\b")
"""Names of columns and tables that only moved queries have."""
_NAMED = ("PROMPT", "INPUT", "PER")
_SHAPELESS = re.compile(r"[\s()\"]+")


class Wording:
    """The calls of a connection's last statements, as they were written."""

    def __init__(self) -> None:
        self._texts: deque[str] = deque(maxlen=REMEMBERED_STATEMENTS)
        self._shown: dict[str, str] = {}

    def note(self, text: str) -> None:
        """Remember a statement that is about to run."""
        if text in self._texts:
            self._texts.remove(text)
        self._texts.append(text)
        self._shown = {}

    def shown(self, bound: str) -> str:
        """An argument as it was written; itself where that is not known.

        Args:
            bound: its text as DuckDB has it.
        """
        found = self._shown.get(bound)
        if found is None:
            found = _without_brackets(_found(bound, [*reversed(self._texts)]))
            self._shown[bound] = found
        return found


def _found(bound: str, texts: list[str]) -> str:
    written = [dict(_arguments(text)) for text in texts]
    layers = list(_unguarded(bound))
    for layer in layers:
        for known in written:
            same = skeleton(layer)
            if same in known:
                return known[same]
    for layer in layers:
        pattern = _pattern(layer)
        if pattern is None:
            continue
        for known in written:
            fitting = {text for key, text in known.items() if pattern.fullmatch(key)}
            if len(fitting) == 1:
                return fitting.pop()
    return _OURS.sub("..", layers[-1] if texts else bound)


def _pattern(layer: str) -> re.Pattern[str] | None:
    """What arguments look like that have any expression for columns of ours; None without these."""
    parts = _OURS.split(skeleton(layer))
    return re.compile(".+".join(map(re.escape, parts)), re.DOTALL) if len(parts) > 1 else None


def _arguments(text: str) -> Iterator[tuple[str, str]]:
    """Prompts and groups of the calls in a text, nested ones too, by their skeletons."""
    try:
        words = Words(text)
    except QueryError:
        return
    for at in range(len(words)):
        if words.tokens[at].text.lower() not in NAMES or not words.is_any(at + 1, "("):
            continue
        for place, (first, last) in enumerate(words.listed(at + 2, words.closing(at + 1))):
            is_named = words.is_any(first + 1, ":=", "=>")
            if is_named and words.tokens[first].text.upper() in _NAMED:
                argument = words.slice(first + 2, last)
            elif not is_named and place < 2:  # the table form has its column second
                argument = words.slice(first, last)
            else:
                continue
            yield skeleton(argument), argument


def skeleton(text: str) -> str:
    """An expression without casts, brackets, qualifiers, blanks and capitals."""
    tree = _parsed(text)
    if tree is None or not tree.selects:
        return _SHAPELESS.sub("", text).lower()
    for column in tree.find_all(exp.Column):
        for part in ("table", "db", "catalog"):
            column.set(part, None)
    for cast in list(tree.find_all(exp.Cast)):
        cast.replace(cast.this)
    for case in tree.find_all(exp.Case):
        other = case.args.get("default")
        if other is not None and _is_null(other):
            case.set("default", None)  # DuckDB writes it out
    return _SHAPELESS.sub("", sql(tree.selects[0])).lower()


def _unguarded(text: str) -> Iterator[str]:
    """A text, and then without its guards: conditions under which it is NULL instead."""
    yield text
    tree = _parsed(text)
    node: exp.Expr | None = tree.selects[0] if tree is not None and tree.selects else None
    while node is not None:
        while isinstance(node, exp.Paren):
            node = node.this
        if not isinstance(node, exp.Case) or node.this is not None or len(node.args["ifs"]) != 1:
            return
        taken, other = node.args["ifs"][0].args["true"], node.args.get("default")
        if other is None or _is_null(other):
            node = taken
        elif _is_null(taken):
            node = other
        else:
            return
        yield sql(node.unnest())


def _without_brackets(text: str) -> str:
    """An expression without the brackets around all of it."""
    tree = _parsed(text) if text.startswith("(") else None
    return sql(tree.selects[0].unnest()) if tree is not None and tree.selects else text


def _is_null(node: exp.Expr) -> bool:
    while isinstance(node, (exp.Paren, exp.Cast)):
        node = node.this
    return isinstance(node, exp.Null)


def _parsed(text: str) -> exp.Select | None:
    """An expression as the only item of a query; None if it cannot be read."""
    tree = parse(f"SELECT {text}")
    return tree.copy() if isinstance(tree, exp.Select) else None
