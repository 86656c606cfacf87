"""Conditions: their conjuncts with and without calls, and the order in which to ask."""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from smartsql.sql.normalise.analysis.purity import is_total
from smartsql.sql.normalise.calls.clauses import has_call, own_calls
from smartsql.sql.normalise.syntax.dialect import key


def split(condition: exp.Expr | None) -> tuple[list[exp.Expr], list[exp.Expr]]:
    """Conjuncts without a call, and those with one."""
    cheap: list[exp.Expr] = []
    smart: list[exp.Expr] = []
    stack = [condition] if condition is not None else []
    while stack:
        node = stack.pop()
        if isinstance(node, exp.And):
            stack += [node.expression, node.this]
        elif isinstance(node, exp.Paren) and isinstance(node.this, exp.And):
            stack.append(node.this)
        else:
            (smart if has_call(node) else cheap).append(node)
    return cheap, smart


def conjunction(conditions: list[exp.Expr]) -> exp.Expr | None:
    """The conditions joined by AND; None if there is none."""
    return exp.and_(*conditions, copy=False) if conditions else None


def set_where(select: exp.Select, conditions: list[exp.Expr]) -> None:
    """Make these the WHERE clause."""
    joined = conjunction(conditions)
    select.set("where", None if joined is None else exp.Where(this=joined))


def by_effort(smart: Sequence[exp.Expr]) -> list[list[exp.Expr]]:
    """Conditions on answers in the order in which to ask: those with fewer calls first.

    Conditions on the same calls belong to one step. As long as one of them could raise, the order
    of writing is kept: the earlier ones may be there to prevent that.
    """
    remaining = list(smart)
    free = all(_is_total(condition) for condition in smart)
    known: set[str] = set()
    steps: list[list[exp.Expr]] = []
    while remaining:
        first = min(remaining, key=lambda c: len(_texts(c) - known)) if free else remaining[0]
        known |= _texts(first)
        step: list[exp.Expr] = []
        for condition in remaining:
            if _texts(condition) <= known:
                step.append(condition)
            elif not free:
                break
        steps.append(step)
        remaining = [c for c in remaining if not any(c is done for done in step)]
    return steps


def _texts(condition: exp.Expr) -> set[str]:
    return {key(call) for call in own_calls(condition)}


def _is_total(condition: exp.Expr) -> bool:
    """Whether a condition cannot raise, whatever the answers are."""
    answered = exp.paren(condition)
    for call in own_calls(answered):
        if call.parent is not None:
            call.replace(exp.Null())
    return is_total(answered)
