"""Functions behind a dot: `review.smart_llm()` is `smart_llm(review)`.

Before such a dot sqlglot turns columns into bare names; here they become columns again. A name
before the dot may also be that of a schema: `main.smart_llm(review)`.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlglot import exp

from smartsql.sql.normalise.syntax.trees import every, in_order

_SCHEMAS = frozenset({"main", "temp", "system", "pg_catalog", "information_schema"})
_OPTIONS = 2
"""Delta and gamma: what may stand behind the prompt without a name."""


def restore_columns(tree: exp.Expr) -> None:
    """Make columns of the names before functions that follow a dot."""
    for dot in every(tree, exp.Dot):
        if isinstance(dot.expression, (exp.Func, exp.Window)) and not _is_schema(dot):
            for name in every(dot.this, exp.Identifier, exp.Dot):
                _restore(name)


def plan_dots(tree: exp.Expr, functions: Collection[str]) -> None:
    """Write calls of these functions behind a dot as other calls; their prompt comes first."""
    for dot in [node for node in in_order(tree) if isinstance(node, exp.Dot)]:
        call = dot.expression
        if (
            isinstance(call, exp.Anonymous)
            and call.name.lower() in functions
            and not (_is_schema(dot) or _has_prompt(dot))
        ):
            dot.replace(exp.Anonymous(this=call.this, expressions=[dot.this, *call.expressions]))


def _is_schema(dot: exp.Dot) -> bool:
    """Whether what stands before the dot is one of DuckDB's schemas."""
    before = dot.this.this if isinstance(dot.this, exp.Column) else dot.this
    return isinstance(before, exp.Identifier) and before.name.lower() in _SCHEMAS


def _has_prompt(dot: exp.Dot) -> bool:
    """Whether the brackets hold the prompt, so that a schema of the user's stands before them."""
    if not isinstance(dot.this, exp.Column):
        return False
    named = (exp.PropertyEQ, exp.Kwarg)
    given = [item for item in dot.expression.expressions if not isinstance(item, named)]
    return len(given) > _OPTIONS or not all(isinstance(item, exp.Literal) for item in given)


def _restore(name: exp.Expr) -> None:
    parent = name.parent
    if isinstance(parent, exp.Dot) and parent.expression is name:
        return  # a part of a name, or a field
    if isinstance(name, exp.Dot):
        parts = list(name.flatten())
        if all(isinstance(part, exp.Identifier) for part in parts):
            keys = ("this", "table", "db", "catalog")
            name.replace(
                exp.Column(
                    **dict(zip(keys, [part.copy() for part in reversed(parts)], strict=False))
                )
            )
    elif isinstance(parent, (exp.Binary, exp.Unary, exp.Func, exp.Cast, exp.Tuple)) and (
        name.arg_key in {"this", "expression", "expressions"}
    ):
        name.replace(exp.Column(this=name.copy()))
