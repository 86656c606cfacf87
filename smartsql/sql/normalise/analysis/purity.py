"""Which conditions may be evaluated before a call, to spare it rows.

A condition is cheap if it asks no model, reads no other rows and gives the same value whenever
it is evaluated. It is total if it cannot raise either: only such a condition may be evaluated for
rows that the statement as written would not have evaluated it for.
"""

from __future__ import annotations

from functools import lru_cache

from sqlglot import exp

from smartsql.sql.normalise.calls.clauses import NAMES
from smartsql.sql.normalise.syntax.engine import aggregates, pure_functions, volatile_functions
from smartsql.sql.normalise.syntax.trees import nodes

_CONNECTIVES = (exp.And, exp.Or, exp.Not, exp.Paren, exp.Is, exp.Between, exp.In, exp.Tuple)
_TOTAL = (
    *_CONNECTIVES,
    *(exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.NullSafeEQ, exp.NullSafeNEQ),
    *(exp.Like, exp.ILike, exp.Column, exp.Identifier, exp.Literal, exp.Null, exp.Boolean),
    *(exp.Neg, exp.DPipe, exp.Case, exp.If, exp.TryCast, exp.DataType, exp.DataTypeParam),
)
"""Nodes that give a value or NULL for whatever they are applied to."""
_TOTAL_FUNCTIONS = frozenset({"coalesce", "ifnull", "lower", "upper", "length", "trim", "contains"})
_SEVERAL_ROWS = (exp.Select, exp.SetOperation, exp.Subquery, exp.Exists, exp.Window, exp.Unnest)
_SYNTAX = frozenset({"coalesce", "ifnull", "if", "nullif"})
"""Functions that are part of DuckDB's grammar, so that no macro can take their names."""


def is_cheap(node: exp.Expr) -> bool:
    """Whether a condition may be evaluated once more, and for fewer or more rows."""
    return all(
        not isinstance(part, (*_SEVERAL_ROWS, exp.Columns))
        and not (isinstance(part, exp.Star) and not isinstance(part.parent, exp.Anonymous))
        and (not isinstance(part, exp.Anonymous) or _is_pure(part))
        and (not isinstance(part, exp.Func) or isinstance(part, _KNOWN_FUNCTIONS))
        and not (isinstance(part, exp.Placeholder) and part.this is None)  # `?`: one value each
        for part in nodes(node)
    )


def is_total(node: exp.Expr) -> bool:
    """Whether a cheap condition cannot raise, whatever the rows hold."""
    return all(
        isinstance(part, _TOTAL)
        or (isinstance(part, exp.Anonymous) and part.name.lower() in _TOTAL_FUNCTIONS)
        or _is_remainder(part)
        for part in nodes(node)
    )


def is_steady(query: exp.Expr) -> bool:
    """Whether DuckDB knows no function in a query that gives another value at each evaluation."""
    return not any(
        isinstance(node, exp.Anonymous) and node.name.lower() in volatile_functions()
        for node in nodes(query)
    )


_KNOWN_FUNCTIONS = (
    *(exp.Anonymous, exp.And, exp.Or, exp.Case, exp.If, exp.Cast, exp.TryCast),
    *(exp.Extract, exp.Trim, exp.Substring, exp.Array, exp.Struct, exp.JSONExtract),
    *(exp.JSONExtractScalar, exp.RegexpLike, exp.ArrayContainsAll),
)


@lru_cache(maxsize=1)
def _pure() -> frozenset[str]:
    return (pure_functions() | aggregates() | _SYNTAX) - NAMES - {"unnest", "generate_subscripts"}


def _is_pure(function: exp.Anonymous) -> bool:
    return function.name.lower() in _pure()


def _is_remainder(node: exp.Expr) -> bool:
    """Whether a node is `x % 7`: any number but 0 and -1 below, for which nothing overflows."""
    if not isinstance(node, exp.Mod) or not isinstance(node.expression, exp.Literal):
        return False
    divisor = node.expression
    return not divisor.is_string and divisor.this.isdigit() and int(divisor.this) > 1
