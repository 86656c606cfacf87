"""Guards: a prompt is NULL in rows for which the answer cannot matter.

    SELECT CASE WHEN k = 3 THEN smart_llm(review) END FROM t
    SELECT CASE WHEN k = 3 THEN smart_llm(CASE WHEN k = 3 THEN review END) END FROM t

A NULL prompt is never asked and does not count. The guard is the way from the clause to the call:
CASE and `if` take one branch, COALESCE goes on while it sees NULL, AND and OR are decided by one
side, FILTER drops rows of an aggregate. Under three-valued logic the other side of AND decides if
it is false, of OR if it is true; where only truth counts (in WHERE, FILTER, a condition of CASE),
NULL decides AND as well. Each step of the way becomes one nested CASE, in the order in which the
statement evaluates them, so that nothing raises for rows that it would not have reached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import cast

from sqlglot import exp

from smartsql.sql.normalise.analysis.conditions import split
from smartsql.sql.normalise.analysis.possible import possible
from smartsql.sql.normalise.analysis.purity import is_cheap, is_total
from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.binding.outputs import aliases_of, name_outputs
from smartsql.sql.normalise.calls.clauses import clause_of, own_calls
from smartsql.sql.normalise.syntax.dialect import key
from smartsql.sql.normalise.syntax.engine import aggregates
from smartsql.sql.normalise.syntax.trees import every, own

_CONDITIONS = frozenset({"where", "having", "qualify", "joins"})
"""Clauses that let a row through if their condition is true."""
_SPLIT = _CONDITIONS - {"qualify"}
"""Clauses whose cheap conjuncts are evaluated before their calls whatever the guard."""
_FIRST_KNOWN = frozenset({"coalesce", "ifnull"})
_AROUND_AGGREGATES = (exp.Filter, exp.WithinGroup, exp.IgnoreNulls, exp.RespectNulls)
_EXPANDING = frozenset({"columns", "unpack", "unnest", "generate_subscripts"})
"""Functions that give several columns or rows, which no CASE may hold."""


class _Counts(Enum):
    """What of a condition's value can matter."""

    TRUTH = 1  # whether it is true; false and NULL are the same
    FALSEHOOD = 2  # whether it is false
    VALUE = 3


_OPPOSITE = {
    _Counts.TRUTH: _Counts.FALSEHOOD,
    _Counts.FALSEHOOD: _Counts.TRUTH,
    _Counts.VALUE: _Counts.VALUE,
}


@dataclass(frozen=True, slots=True)
class _Step:
    """One condition on the way to a call.

    Attributes:
        condition: what is evaluated.
        passes: whether the way goes on if it is true; else, if it is not true.
    """

    condition: exp.Expr
    passes: bool

    def __str__(self) -> str:
        return f"{self.passes} {key(self.condition)}"


def plan_guards(select: exp.Select, names: Names) -> bool:
    """Guard the prompts of a query's calls; True if there was a guard to set.

    Equal calls keep equal texts: their guard lets through what any of them needs.
    """
    if not _guarded(select):
        return False
    names.changed = names.spared = True
    name_outputs(select)
    for call, ways in _guarded(select):
        prompt = _prompt(call)
        assert prompt is not None
        _guard(prompt, ways)
    return True


def guard_with(call: exp.Expr, conditions: list[exp.Expr]) -> None:
    """Make a call ask only where conditions hold; its answer is NULL elsewhere."""
    prompt = _prompt(call)
    assert prompt is not None
    _guard(prompt, [[_Step(condition, True) for condition in conditions]])


def _guarded(select: exp.Select) -> list[tuple[exp.Expr, list[list[_Step]]]]:
    """The calls that have a guard, with the ways to them and their equals."""
    found: dict[str, list[exp.Expr]] = {}
    for call in own_calls(select):
        found.setdefault(key(call), []).append(call)
    known = [(same, _ways(same, select)) for same in found.values()]
    return [(call, ways) for same, ways in known for call in same if ways]


def _ways(same: list[exp.Expr], select: exp.Select) -> list[list[_Step]]:
    """The different ways to equal calls; none if one of them is open."""
    ways: dict[str, list[_Step]] = {}
    for call in same:
        way = _way(call, select) if _is_guardable(call) else []
        ways.setdefault(_text(way), way)
    if len(ways) > 1:
        # each prompt is then computed where any of the calls stands, also early
        known = set(aliases_of(select))
        for text, way in ways.items():
            ways[text] = [s for s in way if is_total(s.condition) and not _refers(s, known)]
    return list(ways.values()) if all(ways.values()) else []


def _text(way: list[_Step]) -> str:
    return "; ".join(str(step) for step in way)


def _is_guardable(call: exp.Expr) -> bool:
    """Whether the prompt of a call is one value, computed for each row."""
    prompt = _prompt(call)
    if prompt is None or call.find_ancestor(exp.Lambda, exp.Comprehension, exp.Select) is not (
        call.find_ancestor(exp.Select)
    ):
        return False
    return not any(
        isinstance(node, (exp.Star, exp.Columns, exp.Unnest))
        or (isinstance(node, exp.Anonymous) and node.name.lower() in _EXPANDING)
        for node in own(prompt)
    )


def _prompt(call: exp.Expr) -> exp.Expr | None:
    """The argument of a call that is sent."""
    for argument in call.expressions:
        if not isinstance(argument, (exp.PropertyEQ, exp.Kwarg)):
            return cast(exp.Expr, argument)
        if argument.name.lower() in {"prompt", "input"}:
            return cast(exp.Expr, argument.expression)
    return None


def _way(call: exp.Expr, select: exp.Select) -> list[_Step]:
    """Cheap conditions under which a call's value is looked at, the outermost first."""
    line = [call]
    while line[-1].parent is not None and line[-1].parent is not select:
        line.append(line[-1].parent)
    line.reverse()
    clause = clause_of(call, select)
    if clause == "joins" and not _are_inner(select):
        return []  # a guard that reads both sides could not be pushed into one
    counts = _Counts.TRUTH if clause in _CONDITIONS else _Counts.VALUE
    steps: list[_Step] = []
    is_top = clause in _SPLIT
    for node, child in pairwise(line):
        is_top = is_top and isinstance(node, (exp.Where, exp.Having, exp.Join, exp.Paren, exp.And))
        if not (is_top and isinstance(node, exp.And)):
            counts = _entered(node, child, counts, steps)
    hidden = {name for name, meaning in aliases_of(select).items() if not is_cheap(meaning)}
    found, is_open = ([], False) if clause in _SPLIT else _survival(select)
    for step in steps:
        if not is_cheap(step.condition) or _refers(step, hidden):
            is_open = True  # what follows is evaluated for more rows than before
        elif not is_open or is_total(step.condition):
            found.append(step)
    return list({str(step): step for step in found}.values())


def _survival(select: exp.Select) -> tuple[list[_Step], bool]:
    """What must hold of rows whose answers WHERE lets through, and whether it asks about others.

    A condition on answers is evaluated where the calls of the other clauses are, not before.
    """
    where = select.args.get("where")
    _, smart = split(where.this if where is not None else None)
    found = [possible(condition, True) for condition in smart]
    return [_Step(condition, True) for condition in found if condition is not None], bool(smart)


def _are_inner(select: exp.Select) -> bool:
    """Whether no join of a query keeps rows without a match."""
    kinds = {
        str(join.args.get(key) or "").upper()
        for join in select.args.get("joins") or []
        for key in ("method", "side", "kind")
    }
    return kinds <= {"", "INNER", "CROSS"}


def _refers(step: _Step, aliases: set[str]) -> bool:
    return any(
        not column.table and column.name.lower() in aliases
        for column in every(step.condition, exp.Column)
    )


def _entered(node: exp.Expr, child: exp.Expr, counts: _Counts, steps: list[_Step]) -> _Counts:
    """What counts of `child`, which stands in `node`; adds the conditions between them."""
    for kind, entered in _WAYS_IN.items():
        if isinstance(node, kind):
            return entered(node, child, counts, steps)
    if isinstance(node, exp.Window) or (
        (isinstance(node, exp.WithinGroup) or _is_aggregating(node))
        and not isinstance(node.parent, _AROUND_AGGREGATES)
    ):
        steps.clear()  # its value depends on all rows, whatever is done with it
    elif isinstance(node, exp.Anonymous) and node.name.lower() in _FIRST_KNOWN:
        for argument in node.expressions:
            if argument is child:
                break
            steps.append(_Step(exp.Is(this=_operand(argument), expression=exp.Null()), True))
    return _Counts.VALUE


def _entered_filter(
    node: exp.Expr, child: exp.Expr, counts: _Counts, steps: list[_Step]
) -> _Counts:
    """The condition of FILTER, or the aggregate in front of it."""
    steps.clear()
    if child is node.expression:
        return _Counts.TRUTH
    steps.append(_Step(node.expression.this, True))
    return _Counts.VALUE


def _is_aggregating(node: exp.Expr) -> bool:
    return isinstance(node, exp.Anonymous) and node.name.lower() in aggregates()


def _operand(node: exp.Expr) -> exp.Expr:
    """A copy that may stand beside an operator."""
    return exp.paren(node) if isinstance(node, (exp.Binary, exp.Unary)) else node.copy()


def _entered_connective(
    node: exp.Expr, child: exp.Expr, counts: _Counts, steps: list[_Step]
) -> _Counts:
    """One side of AND or OR: looked at unless the other decides."""
    is_late = child is node.this
    other = node.expression if is_late else node.this
    if is_late and not is_total(other):
        return counts  # it may raise, and was to be evaluated only after this side
    negated = exp.Not(this=exp.paren(other))
    if isinstance(node, exp.Or):
        is_false = counts is _Counts.FALSEHOOD
        steps.append(_Step(negated, True) if is_false else _Step(other, False))
    else:
        is_truth = counts is _Counts.TRUTH
        steps.append(_Step(other, True) if is_truth else _Step(negated, False))
    return counts


def _entered_case(node: exp.Expr, child: exp.Expr, counts: _Counts, steps: list[_Step]) -> _Counts:
    """A branch of CASE: looked at if no condition before it is true."""
    if child is node.this:
        return _Counts.VALUE
    for branch in node.args["ifs"]:
        if branch is child:
            break
        steps.append(_Step(_condition(branch), False))
    return counts


def _entered_branch(
    node: exp.Expr, child: exp.Expr, counts: _Counts, steps: list[_Step]
) -> _Counts:
    """A part of `WHEN .. THEN ..` or of `if(.., .., ..)`."""
    if child is node.this:
        compared = isinstance(node.parent, exp.Case) and node.parent.this is not None
        return _Counts.VALUE if compared else _Counts.TRUTH
    assert isinstance(node, exp.If)
    steps.append(_Step(_condition(node), child is node.args.get("true")))
    return counts


def _condition(branch: exp.If) -> exp.Expr:
    """What is true if a branch is taken: of `CASE x WHEN y`, that x = y."""
    case = branch.parent
    if isinstance(case, exp.Case) and case.this is not None:
        return exp.EQ(this=_operand(case.this), expression=_operand(branch.this))
    return cast(exp.Expr, branch.this)


_WAYS_IN: dict[type[exp.Expr], Callable[..., _Counts]] = {
    **dict.fromkeys(
        (exp.Paren, exp.Where, exp.Having, exp.Qualify, exp.Join, exp.Alias),
        lambda node, child, counts, steps: counts,
    ),
    exp.Not: lambda node, child, counts, steps: _OPPOSITE[counts],
    exp.And: _entered_connective,
    exp.Or: _entered_connective,
    exp.Case: _entered_case,
    exp.If: _entered_branch,
    exp.Filter: _entered_filter,
}
"""What counts inside a node, for those that do not look at the value of what they hold."""


def _guard(prompt: exp.Expr, ways: list[list[_Step]]) -> None:
    """Put CASE around a prompt, in place."""
    place = exp.Null()
    prompt.replace(place)
    if len(ways) == 1:
        guarded = _nested(ways[0], prompt)
    else:
        passed = [exp.paren(_passing(way), copy=False) for way in ways]
        guarded = _nested([_Step(exp.or_(*passed, copy=False), True)], prompt)
    place.replace(guarded)


def _passing(way: list[_Step]) -> exp.Expr:
    """Whether all conditions of a way hold; they are total, so their order does not matter."""
    if all(step.passes for step in way):
        return exp.and_(*[step.condition for step in way])
    return _nested(way, exp.true())


def _nested(way: list[_Step], inside: exp.Expr) -> exp.Expr:
    """`inside` where all conditions of a way hold, else NULL."""
    for step in reversed(way):
        case = exp.Case(ifs=[])
        taken = inside if step.passes else exp.Null()
        case.append("ifs", exp.If(this=step.condition.copy(), true=taken))
        if not step.passes:
            case.set("default", inside)
        inside = case
    return inside
