"""What must hold for a condition to be true, whatever the answers in it are.

    (k = 1 AND smart_llm(r) = 'a') OR (k = 2 AND smart_llm(r) = 'b')        k = 1 OR k = 2

Rows for which this does not hold are left out by the condition, so no other clause needs answers
for them.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlglot import exp

from smartsql.sql.normalise.analysis.purity import is_cheap, is_total


def possible(condition: exp.Expr, value: bool) -> exp.Expr | None:
    """A cheap condition that is true wherever another one can have a value; None if unknown."""
    while isinstance(condition, (exp.Paren, exp.Not)):
        value = value is not isinstance(condition, exp.Not)
        condition = condition.this
    if isinstance(condition, (exp.And, exp.Or)):
        sides = [possible(side, value) for side in (condition.this, condition.expression)]
        return _both(sides) if isinstance(condition, exp.And) is value else _either(sides)
    if isinstance(condition, exp.If):
        return _either([_taken(condition, value), _else(condition.args.get("false"), value)])
    if isinstance(condition, exp.Case) and condition.this is None:
        branches = [_taken(branch, value) for branch in condition.args["ifs"]]
        return _either([*branches, _else(condition.args.get("default"), value)])
    if not is_cheap(condition) or not is_total(condition):
        return None
    return condition if value else exp.Not(this=exp.paren(condition))


def _taken(branch: exp.If, value: bool) -> exp.Expr | None:
    return _both([possible(branch.this, True), possible(branch.args["true"], value)])


def _else(otherwise: exp.Expr | None, value: bool) -> exp.Expr | None:
    return exp.false() if otherwise is None else possible(otherwise, value)


def _both(sides: Iterable[exp.Expr | None]) -> exp.Expr | None:
    known = [side for side in sides if side is not None]
    return exp.and_(*known) if known else None


def _either(sides: Iterable[exp.Expr | None]) -> exp.Expr | None:
    known = list(sides)
    return None if None in known else exp.or_(*known)
