"""Writing a changed query with the words of the original.

sqlglot spells much of DuckDB's SQL in its own way. So every node remembers which words of the
text it was read from, and what it looked like. Written again, a node that still looks so is those
words, with the words of its parts exchanged where they changed; only nodes that the rules built
or took apart are spelled by sqlglot.

What had to be spelled anew is proven: the original query with exactly these nodes spelled anew,
and with brackets around every part that changed, must be the same query to DuckDB's parser.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import ErrorLevel

from smartsql.sql.normalise.origins import Origin, is_absent, origin_of

_WORDS = "words"
_CLAUSES = (
    *(exp.From, exp.Join, exp.Lateral, exp.Where, exp.Group, exp.Having, exp.Qualify, exp.Order),
    *(exp.Limit, exp.Offset, exp.Fetch, exp.TableSample, exp.Pivot),
)
_REWRITTEN = frozenset({exp.Fetch})
"""Clauses that sqlglot takes apart and writes as others."""
_CONNECTORS = (exp.And, exp.Or, exp.Not, exp.Xor)


def _matches(item: Any, value: Any, found: list[tuple[Origin, exp.Expr]]) -> bool:
    """Whether a value still looks as it was read, but for its parts, which go to `found`."""
    if isinstance(item, Origin):
        if not isinstance(value, exp.Expr):
            return False
        found.append((item, value))
        return True
    if isinstance(item, list):
        return (
            isinstance(value, list)
            and len(item) == len(value)
            and all(_matches(a, b, found) for a, b in zip(item, value, strict=True))
        )
    if isinstance(item, tuple):
        kind, shape = item
        return type(value) is kind and _looks(shape, value, found)
    return type(item) is type(value) and bool(item == value)


def _looks(
    shape: tuple[tuple[str, Any], ...], node: exp.Expr, found: list[tuple[Origin, exp.Expr]]
) -> bool:
    present = [(key, value) for key, value in node.args.items() if not is_absent(value)]
    if len(present) != len(shape):
        return False
    args = node.args
    return all(_matches(item, args.get(key), found) for key, item in shape)


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
        self.kept: set[int] = set()
        self.spelled: set[int] = set()
        self.changed: set[int] = set()

    def sql(
        self, expression: str | exp.Expr | None, key: str | None = None, comment: bool = True
    ) -> str:
        """The text of a node, or of one of its arguments."""
        if isinstance(expression, exp.Expr) and key is None:
            words = expression.meta_get(_WORDS)
            if words is not None:
                return _set_off(type(expression), str(words))
            origin = origin_of(expression)
            if origin is not None:
                found: list[tuple[Origin, exp.Expr]] = []
                if type(expression) is origin.kind and _looks(origin.shape, expression, found):
                    return _set_off(origin.kind, self._spliced(origin, found))
                self.spelled.add(id(origin))
        return str(super().sql(expression, key, comment))

    def _spliced(self, origin: Origin, found: list[tuple[Origin, exp.Expr]]) -> str:
        self.kept.add(id(origin))
        texts = {}
        for part, node in found:
            texts[id(part)] = self.sql(node).strip()
            if origin_of(node) is not part:
                self.changed.add(id(part))
        return origin.with_parts(texts)


def proof(root: Origin, written: Writer, *, brackets: bool) -> str:
    """The original query, with what a writer had to spell anew spelled anew.

    Args:
        root: origin of the whole query.
        written: the writer that wrote the changed query.
        brackets: put brackets around conditions, and around parts that changed.
    """
    writer = Writer(dialect=written.dialect)

    def write(origin: Origin) -> str:
        if id(origin) in written.kept and id(origin) not in written.spelled:
            texts = {}
            for part in origin.parts:
                exposed = brackets and id(part) in written.changed and _may_bracket(origin, part)
                texts[id(part)] = f"({write(part)})" if exposed else write(part)
            return origin.with_parts(texts)
        return writer.sql(build((origin.kind, origin.shape), None)).strip()

    def build(item: Any, parent: type[exp.Expr] | None) -> Any:
        if isinstance(item, Origin):
            text = write(item)
            exposed = brackets and parent is not None and issubclass(parent, _CONNECTORS)
            node = build(
                (item.kind, () if item.parts and item.kind not in _REWRITTEN else item.shape), None
            )
            node.meta[_WORDS] = f"({text})" if exposed else text
            return node
        if isinstance(item, tuple):
            kind, shape = item
            return kind(**{key: build(value, kind) for key, value in shape})
        return [build(value, parent) for value in item] if isinstance(item, list) else item

    return write(root)


def _may_bracket(origin: Origin, part: Origin) -> bool:
    """Whether brackets around a part mean nothing."""
    return issubclass(part.kind, exp.Condition) and not (
        issubclass(part.kind, (exp.Star, exp.Columns)) or issubclass(origin.kind, exp.Dot)
    )
