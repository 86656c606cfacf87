"""Writing a changed query with the words of the original.

sqlglot spells much of DuckDB's SQL in its own way. So every node remembers which words of the
text it was read from, and what it looked like. Written again, a node that still looks so is those
words, with the words of its parts exchanged where they changed; only nodes that the rules built
or took apart are spelled by sqlglot.
What had to be spelled anew is proven to mean the same in `proof`.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import ErrorLevel
from sqlglot.helper import name_sequence

from smartsql.sql.normalise.syntax.origins import Origin, origin_of

WORDS = "words"
"""Under this key a node that stands for a text carries it."""
_CLAUSES = (
    *(exp.From, exp.Join, exp.Lateral, exp.Where, exp.Group, exp.Having, exp.Qualify, exp.Order),
    *(exp.Limit, exp.Offset, exp.Fetch, exp.TableSample, exp.Pivot),
)


def _matches(item: Any, value: Any, found: list[tuple[Origin, exp.Expr]]) -> bool:
    """Whether a value still looks as it was read, but for its parts, which go to `found`."""
    is_like = item.__class__
    if is_like is Origin:
        if not isinstance(value, exp.Expr):
            return False
        found.append((item, value))
        return True
    if is_like is tuple:
        kind, shape = item
        return value.__class__ is kind and _looks(shape, value, found)
    if is_like is list:
        return (
            value.__class__ is list
            and len(item) == len(value)
            and all(_matches(a, b, found) for a, b in zip(item, value, strict=True))
        )
    return is_like is value.__class__ and bool(item == value)


def _looks(
    shape: tuple[tuple[str, Any], ...], node: exp.Expr, found: list[tuple[Origin, exp.Expr]]
) -> bool:
    args = node.args
    for key, item in shape:
        value = args.get(key)
        if item.__class__ is tuple:  # here and not in `_matches`: chains of operators are deep
            kind, parts = item
            if value.__class__ is not kind or not _looks(parts, cast(exp.Expr, value), found):
                return False
        elif not _matches(item, value, found):
            return False
    present = len(args)
    if present > len(shape):
        for value in args.values():
            if value is None or (value.__class__ is list and not value):
                present -= 1
    return present == len(shape)


def _set_off(kind: type[exp.Expr], words: str) -> str:
    """The words of a clause as sqlglot has them: behind a space, but for a comma."""
    return f" {words}" if issubclass(kind, _CLAUSES) and not words.startswith(",") else words


class Writer(DuckDB.Generator):  # type: ignore[misc, valid-type]
    """Writes trees, with the words they were read from wherever these still hold.

    Attributes:
        kept: origins (their `id`) whose words were used.
        spelled: origins of nodes that no longer look as they were read.
        changed: origins of parts in whose place something else was written.
    """

    MULTI_ARG_DISTINCT = True
    # these rewrite what is written, each for the sake of another dialect
    TRANSFORMS: ClassVar[dict[Any, Any]] = {
        kind: write
        for kind, write in DuckDB.Generator.TRANSFORMS.items()
        if kind not in (exp.Select, exp.Pivot)
    }

    def __init__(self, **options: Any) -> None:
        super().__init__(
            **options,
            normalize_functions=False,
            unsupported_level=ErrorLevel.IGNORE,
            comments=False,
        )
        self.begin()

    def begin(self) -> None:
        """Forget what was written before."""
        self.kept: set[int] = set()
        self.spelled: set[int] = set()
        self.changed: set[int] = set()
        self._next_name = name_sequence("_t")

    def sql(
        self, expression: str | exp.Expr | None, key: str | None = None, comment: bool = True
    ) -> str:
        """The text of a node, or of one of its arguments."""
        if key is None and isinstance(expression, exp.Expr):
            origin = origin_of(expression)
            if origin is not None:
                found: list[tuple[Origin, exp.Expr]] = []
                if expression.__class__ is origin.kind and _looks(origin.shape, expression, found):
                    return _set_off(origin.kind, self._spliced(origin, found))
                self.spelled.add(id(origin))
            else:
                words = expression.meta_get(WORDS)
                if words is not None:
                    return _set_off(type(expression), str(words))
        return str(super().sql(expression, key, comment))

    def _spliced(self, origin: Origin, found: list[tuple[Origin, exp.Expr]]) -> str:
        self.kept.add(id(origin))
        texts = {}
        for part, node in found:
            text = self.sql(node).strip()
            if text != part.text:
                texts[id(part)] = text
            if origin_of(node) is not part:
                self.changed.add(id(part))
        return origin.with_parts(texts)
