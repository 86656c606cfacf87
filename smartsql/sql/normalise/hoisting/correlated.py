"""Calls in queries that read a query around them, or a relation written before them in FROM.

DuckDB runs such a query once for each value it reads, and so the window of a call would see one
part of its rows after the other. The call is moved to where all its rows are known at once.

    SELECT i, (SELECT max(smart_llm(u.r)) FROM u WHERE u.i = t.i) FROM t
    SELECT i, (SELECT max(u.__ahead_1) FROM (SELECT *, smart_llm(u.r) AS __ahead_1 FROM u
        WHERE u.i IN (SELECT t.i FROM t)) AS u WHERE u.i = t.i) FROM t

    SELECT i, z.a FROM t, (SELECT smart_llm(t.r) AS a) z
    SELECT i, z.a FROM (SELECT *, smart_llm(t.r) AS __ahead_1 FROM t) AS t,
        (SELECT t.__ahead_1 AS a) z

A scalar query that does nothing but call is the prompt of a call around it, whatever it reads:

    SELECT i, (SELECT smart_llm(u.r || t.r) FROM u WHERE u.i = t.i) FROM t
    SELECT i, smart_llm((SELECT u.r || t.r FROM u WHERE u.i = t.i)) FROM t
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from smartsql.sql.normalise.analysis.conditions import split
from smartsql.sql.normalise.analysis.relations import (
    conditions_on,
    is_strict,
    may_be_missing,
    reachable,
)
from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.binding.outputs import aliases_of, keep_output_name
from smartsql.sql.normalise.binding.scopes import (
    Owner,
    Resolver,
    is_within,
    levels,
    names_of,
    relations,
    visible,
)
from smartsql.sql.normalise.calls.clauses import clause_of, is_aggregate, is_call, own_calls, refuse
from smartsql.sql.normalise.hoisting.ahead import Place, compute_ahead, same_calls
from smartsql.sql.normalise.hoisting.over_joins import compute_over_join
from smartsql.sql.normalise.syntax.dialect import sql
from smartsql.sql.normalise.syntax.trees import every, own

MAX_STEPS = 100
"""Calls moved in one statement; each step moves at least one call outwards or down."""

_ONE_BY_ONE = "the query runs once for each row around it, so its inputs are never known together"
_CLAUSES = {"expressions", "where", "having", "qualify", "order", "group"}
_GROUPED = {"expressions", "having", "qualify", "order"}


@dataclass(frozen=True, slots=True)
class Site:
    """A call, wherever it stands with the same text in one query, that cannot stay there.

    Attributes:
        reads: a column of a query around it, as it is written.
    """

    select: exp.Select
    calls: list[exp.Expr]
    reads: str


def plan_correlated(root: exp.Expr, names: Names) -> None:
    """Move calls out of correlated queries.

    Raises:
        UnplannableCallError: a call reads columns of its own query and of one around it.
    """
    for _ in range(MAX_STEPS):
        resolver = Resolver(names)
        site = _next_site(root, resolver)
        if site is None:
            return
        if not _as_prompt(site, names):
            _move(site, resolver, names)


def refuse_correlated(select: exp.Select, names: Names) -> None:
    """Refuse a query with calls that still reads one around it.

    Raises:
        UnplannableCallError: with a rewrite that works.
    """
    if not _sees_others(select) or not own_calls(select):
        return
    foreign = Resolver(names).foreign(select)
    if foreign:
        raise _mixed(Site(select, own_calls(select), sql(foreign[0][0])))


def _next_site(root: exp.Expr, resolver: Resolver) -> Site | None:
    """The innermost call of the innermost correlated query that has one."""
    selects = [s for s in every(root, exp.Select) if _sees_others(s)]
    for select in reversed(selects):
        calls = [call for call in own_calls(select) if _is_movable(call, select)]
        if not calls:
            continue
        foreign = resolver.foreign(select)
        if foreign:
            inner = [c for c in calls if not any(is_call(n) for n in own(c) if n is not c)]
            return Site(select, same_calls(inner)[0], sql(foreign[0][0]))
    return None


def _sees_others(select: exp.Select) -> bool:
    """Whether a query could read relations that are not its own."""
    return any(visible(outer, child, select) for outer, child in levels(select))


def _is_movable(call: exp.Expr, select: exp.Select) -> bool:
    inside = call.find_ancestor(exp.Lambda, exp.Comprehension, exp.Values, exp.Select)
    clause = clause_of(call, select)
    return inside is select and clause in {*_CLAUSES, "joins", "distinct", "windows"}


def _as_prompt(site: Site, names: Names) -> bool:
    """Make a scalar query that only calls the prompt of the call; True if it was one."""
    select, call = site.select, site.calls[0]
    query = select.parent
    if len(site.calls) != 1 or len(own_calls(select)) != 1 or select.args.get("distinct"):
        return False
    if [item.unalias() for item in select.expressions] != [call] or not _is_scalar(query):
        return False
    assert isinstance(query, exp.Subquery)
    order = select.args.get("order")
    alias = select.expressions[0].alias.lower()
    if order is not None and any(
        isinstance(item.this, exp.Literal)
        or any(c.name.lower() == alias for c in every(item, exp.Column))
        for item in order.expressions
    ):
        return False
    keep_output_name(query)
    prompt = call.expressions[0]
    named = prompt if isinstance(prompt, (exp.PropertyEQ, exp.Kwarg)) else None
    value = named.expression if named is not None else prompt
    moved = call.copy()
    target = moved.expressions[0]
    rest = select.copy()
    rest.set("expressions", [value.copy()])
    (target.expression if named is not None else target).replace(exp.Subquery(this=rest))
    query.replace(moved)
    names.changed = True
    return True


def _is_scalar(query: exp.Expr | None) -> bool:
    """Whether a query in brackets is a value, in a clause where a call can be planned."""
    if not isinstance(query, exp.Subquery) or query.alias or query.arg_key == "query":
        return False
    if isinstance(
        query.parent,
        (exp.Any, exp.All, exp.From, exp.Join, exp.Exists, exp.CTE, exp.SetOperation, exp.Lateral),
    ):
        return False
    if query.find_ancestor(exp.Lambda, exp.Comprehension, exp.Values, exp.Select).__class__ is not (
        exp.Select
    ):
        return False
    outer, child = next(levels(query))
    return child.arg_key in _CLAUSES and isinstance(outer, exp.Select)


def _move(site: Site, resolver: Resolver, names: Names) -> None:
    """Compute a call with the relation it reads."""
    call = site.calls[0]
    found = resolver.owners(call)
    if _without_aliases(found, resolver, names):
        return
    owners = [owner for _, owner in found]
    if any(is_aggregate(node) for node in own(call)):
        raise refuse(
            call,
            f"a query correlated by {site.reads}, over an aggregate",
            "Aggregate and call in a query of its own, WITH q AS (SELECT id, smart_llm(max(..)) "
            "AS answer FROM .. GROUP BY id), and read q.answer here.",
            _ONE_BY_ONE,
        )
    if not owners:
        _as_query(site, names)
        return
    first = owners[0]
    if first is None or any(o is None or o.select is not first.select for o in owners):
        raise _mixed(site)
    holder, relation = first.select, first.relation
    if holder is not site.select:
        _refuse_grouped(site, holder)
    joined = relation is None or any(o is None or o.relation is not relation for o in owners)
    if relation is None or joined:
        reason = "over several relations of one query"
    elif _is_correlated(relation, resolver):
        reason = "over a relation that is correlated itself"
    elif may_be_missing(holder, relation) and not is_strict(call):
        reason = "over rows that an outer join may have filled"
    else:
        for node in site.calls:
            keep_output_name(node)
        compute_ahead(site.calls, _place(site, holder, relation, resolver), names)
        return
    if not compute_over_join(site.calls, holder, resolver, names):
        raise refuse(
            call,
            f"a query correlated by {site.reads}, {reason}",
            "Join the relations in one query, SELECT t.id, list(smart_llm(e.x)) FROM t, "
            "unnest(t.xs) e(x) GROUP BY t.id; or compute the call in WITH q AS (SELECT .., "
            "smart_llm(..) AS answer FROM t JOIN u ON ..) and read q.answer here.",
            _ONE_BY_ONE,
        )


def _without_aliases(
    found: list[tuple[exp.Column, Owner | None]], resolver: Resolver, names: Names
) -> bool:
    """Write aliases of select lists out; True if there were any.

    Raises:
        UnplannableCallError: a name in the meaning of an alias means something else in the query.
    """
    meant = [(column, owner.select) for column, owner in found if owner and owner.is_alias]
    for column, select in meant:
        meaning = aliases_of(select)[column.name.lower()]
        between = {
            name
            for outer, _ in levels(column)
            if is_within(outer, select) and outer is not select
            for relation in relations(outer)
            for name in names_of(relation)
        }
        copy = meaning.copy()
        for part, (_, owner) in zip(
            every(copy, exp.Column), resolver.owners(meaning), strict=False
        ):
            if not part.table and owner is not None and owner.relation is not None:
                part.set("table", exp.to_identifier(owner.relation.alias_or_name, quoted=True))
        if any(not c.table or c.table.lower() in between for c in every(copy, exp.Column)):
            raise refuse(
                next(iter(own_calls(column.parent_select or select)), column),
                f"a query correlated by {column.name}, an alias",
                "Write what the alias stands for, with the names of its relations, instead of it.",
            )
        column.replace(exp.paren(copy, copy=False))
        names.changed = True
    return bool(meant)


def _as_query(site: Site, names: Names) -> None:
    """Make a call of constants a query of its own, which is not correlated."""
    scalar = exp.Subquery(this=exp.Select(expressions=[site.calls[0].copy()]))
    for call in site.calls:
        keep_output_name(call)
        call.replace(scalar.copy())
    names.changed = True


def _place(site: Site, holder: exp.Select, relation: exp.Expr, resolver: Resolver) -> Place:
    """The relation a call reads, with the rows of it that matter."""
    drop: list[exp.Expr] = []
    skip: list[exp.Expr] = []
    where = holder.args.get("where")
    cheap, _ = split(where.this if where is not None else None)
    if not may_be_missing(holder, relation):
        drop = conditions_on(cheap, relation, resolver) + reachable(cheap, relation, resolver)
    clauses = {clause_of(call, site.select) for call in site.calls}
    if holder is not site.select and clauses == {"where"}:
        inner, _ = split(site.select.args["where"].this)
        skip = reachable(inner, relation, resolver)
    return Place(holder, relation, drop, skip)


def _refuse_grouped(site: Site, holder: exp.Select) -> None:
    """Refuse a call over columns of a query that groups them before the call is read."""
    child = next(child for outer, child in levels(site.select) if outer is holder)
    grouped = holder.args.get("group") or any(is_aggregate(node) for node in own(holder))
    if grouped and child.arg_key in _GROUPED:
        raise refuse(
            site.calls[0],
            f"a query correlated by {site.reads}, of a query with GROUP BY",
            "Group in a query of its own first, WITH q AS (SELECT k, smart_llm(k) AS answer FROM "
            "(SELECT k FROM t GROUP BY k)), and read q.answer here.",
            _ONE_BY_ONE,
        )


def _is_correlated(relation: exp.Expr, resolver: Resolver) -> bool:
    """Whether a relation of FROM reads others."""
    if isinstance(relation, exp.Lateral):
        return True
    around = {id(outer) for outer, _ in levels(relation)}
    return any(
        owner is not None and id(owner.select) in around for _, owner in resolver.owners(relation)
    )


def _mixed(site: Site) -> Exception:
    return refuse(
        site.calls[0],
        f"a query correlated by {site.reads}, reading it and the query's own columns",
        "Join instead: SELECT t.id, max(smart_llm(..)) FROM t LEFT JOIN u ON u.id = t.id GROUP BY "
        "t.id; or compute the call in WITH q AS (SELECT .., smart_llm(..) AS answer FROM t JOIN u "
        "ON ..) and read q.answer here.",
        _ONE_BY_ONE,
    )
