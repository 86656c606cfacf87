"""Conditions and LIMIT of a query, also checked by the queries with calls in its FROM.

    SELECT a FROM (SELECT k, smart_llm(review) AS a FROM t) AS q WHERE q.k = 1
    SELECT a FROM (SELECT k, smart_llm(review) AS a FROM t WHERE k = 1) AS q WHERE q.k = 1

The condition stays where it was, so all that has to hold is that rows it drops below would have
been dropped above, and that nothing else below looks at them: no window, no LIMIT, no aggregate
but of groups that are kept or dropped as a whole. A join with a table says which keys can be
matched, and that is such a condition too. LIMIT and ORDER BY go down where the query around does
nothing else. The same holds for WITH queries that are read once and for `FROM smart_llm(t, col)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from sqlglot import exp

from smartsql.sql.normalise.analysis.conditions import conjunction, split
from smartsql.sql.normalise.analysis.purity import is_cheap, is_total
from smartsql.sql.normalise.analysis.relations import conditions_on, may_be_missing, reachable
from smartsql.sql.normalise.analysis.rows import is_expanding, order_by_columns
from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.binding.outputs import aliases_of
from smartsql.sql.normalise.binding.scopes import Resolver, names_of, relations
from smartsql.sql.normalise.calls.clauses import has_call, is_aggregate, is_call, table_calls
from smartsql.sql.normalise.hoisting.table_form import source_of
from smartsql.sql.normalise.syntax.dialect import key
from smartsql.sql.normalise.syntax.trees import every, own
from smartsql.sql.sets import DETAIL

_OTHER_ROWS = ("limit", "offset", "sample", "pivots", "windows")
_MORE = ("joins", "laterals", "group", "having", "qualify", "distinct", "windows")


def plan_push(root: exp.Expr, names: Names) -> None:
    """Hand cheap conditions and LIMIT down to queries with calls, the outermost first."""
    named = _Named(root)
    for select in every(root, exp.Select):
        if select.args.get("from_") is None or _matches_by_place(select):
            continue
        for relation in relations(select):
            target = _target(relation, named)
            if target is not None:
                _push(select, relation, target, names)


class _Named:
    """Which WITH queries have a name, and what may read them; rules add no further ones."""

    def __init__(self, root: exp.Expr) -> None:
        self.queries: dict[str, list[exp.CTE]] = {}
        self.reads: dict[str, list[exp.Expr]] = {}
        for node in every(root, exp.CTE, exp.Table, exp.Column):
            if isinstance(node, exp.CTE):
                self.queries.setdefault(node.alias.lower(), []).append(node)
            elif isinstance(node, exp.Table) or isinstance(node.parent, exp.Anonymous):
                self.reads.setdefault(node.name.lower(), []).append(node)


def _matches_by_place(select: exp.Select) -> bool:
    """Whether a join of a query matches rows by what else is there, not by a condition alone."""
    methods = {str(j.args.get("method") or "").upper() for j in select.args.get("joins") or []}
    return bool(methods & {"POSITIONAL", "ASOF"})


def _target(relation: exp.Expr, named: _Named) -> exp.Expr | None:
    """The query with calls, or the call, that gives a relation's rows, if only this reads them."""
    alias = relation.args.get("alias")
    if any(relation.args.get(k) for k in ("joins", "pivots", "sample", "laterals")) or (
        alias is not None and alias.args.get("columns")
    ):
        return None
    query: exp.Expr | None = None
    if isinstance(relation, exp.Subquery):
        query = relation.this
    elif isinstance(relation, exp.Table) and isinstance(relation.this, exp.Anonymous):
        return relation.this if relation.this in table_calls(relation) else None
    elif isinstance(relation, exp.Table) and not relation.args.get("db"):
        query = _only_read_here(relation, named)
    if not isinstance(query, exp.Select):
        return None  # of a set operation, columns may change their types above
    asks = any(is_call(node) for node in every(query, exp.Anonymous)) or table_calls(query)
    return query if asks else None


def _only_read_here(table: exp.Table, named: _Named) -> exp.Expr | None:
    """The WITH query that a table names, if nothing else names it."""
    name = table.name.lower()
    ctes, reads = named.queries.get(name, []), named.reads.get(name, [])
    if len(ctes) != 1 or len(reads) != 1 or ctes[0].args["alias"].args.get("columns"):
        return None
    with_ = ctes[0].parent
    holder = with_.parent if with_ is not None else None
    is_inside = any(node is holder for node in _ancestors(table))
    if not isinstance(with_, exp.With) or with_.args.get("recursive") or not is_inside:
        return None
    return ctes[0].this if not any(node is ctes[0] for node in _ancestors(table)) else None


def _ancestors(node: exp.Expr) -> list[exp.Expr]:
    found = []
    while node.parent is not None:
        node = node.parent
        found.append(node)
    return found


def _push(select: exp.Select, relation: exp.Expr, target: exp.Expr, names: Names) -> None:
    resolver = Resolver(names)
    where = select.args.get("where")
    conjuncts = [c for group in split(where.this if where is not None else None) for c in group]
    pushed = []
    for condition in conjuncts:
        known = _restrictions([condition], select, relation, resolver)
        if known and all(_add(condition_below, target) for condition_below in known):
            names.changed = names.spared = True
            if known[0] is condition:
                pushed.append(condition)
    for condition in _joining(select, relation, resolver):
        if _add(condition, target):
            names.changed = names.spared = True
    if len(pushed) == len(conjuncts) and _push_limit(select, relation, target):
        names.changed = names.spared = True


def _restrictions(
    conditions: Sequence[exp.Expr], select: exp.Select, relation: exp.Expr, resolver: Resolver
) -> list[exp.Expr]:
    """What conditions that must be true of a joined row say about a relation of it."""
    if may_be_missing(select, relation):
        return []
    cheap = [condition for condition in conditions if is_cheap(condition)]
    if len(relations(select)) == 1 and isinstance(relation.this, exp.Anonymous):
        return cheap if select.parent is None else []  # all columns are of the one relation
    return conditions_on(cheap, relation, resolver) + reachable(cheap, relation, resolver)


def _joining(select: exp.Select, relation: exp.Expr, resolver: Resolver) -> list[exp.Expr]:
    """What the joins of a query say about one of its relations."""
    found: list[exp.Expr] = []
    known = relations(select)
    for number, join in enumerate(select.args.get("joins") or [], start=1):
        words = " ".join(str(join.args.get(k) or "") for k in ("method", "side", "kind"))
        kind = set(words.upper().split()) - {"INNER", "OUTER", "CROSS"}
        on_the_right = join.this is relation and kind <= {"LEFT", "SEMI"}
        kept = kind <= {"SEMI"} and not may_be_missing(select, relation)
        if not on_the_right and not (kept and relation in known[: number + 1]):
            continue
        on = join.args.get("on")
        cheap = [c for c in split(on)[0] if is_cheap(c)] if on is not None else []
        if number == 1:
            for column in join.args.get("using") or []:
                sides = [_column(column, side) for side in known[:2]]
                if None not in sides:
                    equal = exp.EQ(this=sides[0], expression=sides[1])
                    equal.parent = join
                    equal.arg_key = "on"
                    cheap.append(equal)
        found += conditions_on(cheap, relation, resolver) + reachable(cheap, relation, resolver)
    return found


def _column(name: exp.Expr, relation: exp.Expr) -> exp.Expr | None:
    known = names_of(relation)
    if len(known) != 1:
        return None
    identifier = name.this if isinstance(name, exp.Column) else name
    return exp.column(identifier.copy(), table=exp.to_identifier(next(iter(known)), quoted=True))


# -- conditions below --------------------------------------------------------------------------


def _add(condition: exp.Expr, target: exp.Expr) -> bool:
    """Make a condition on the outputs of a query part of it; False if it cannot be."""
    if isinstance(target, exp.Anonymous):
        return _add_to_call(target, condition)
    mapped = _mapped(condition, target) if isinstance(target, exp.Select) else None
    if mapped is None:
        return False
    where = target.args.get("where")
    held = [exp.paren(where.this)] if where is not None else []
    target.set("where", exp.Where(this=conjunction([*held, mapped])))
    return True


def _columns(condition: exp.Expr) -> list[exp.Column]:
    return [node for node in own(condition) if isinstance(node, exp.Column)]


def _mapped(condition: exp.Expr, select: exp.Select) -> exp.Expr | None:
    """The condition in terms of what a query reads; None if other rows would notice."""
    keys = _kept_as_a_whole(select)
    hidden = {name for name, meaning in aliases_of(select).items() if not is_cheap(meaning)}
    mapped = exp.paren(condition)
    for column in _columns(mapped):
        meaning = _meaning(column, select)
        if (
            meaning is None
            or not is_cheap(meaning)
            or any(not c.table and c.name.lower() in hidden for c in every(meaning, exp.Column))
            or not ("" in keys or (key(meaning) in keys and not is_aggregate(meaning)))
        ):
            return None
        is_simple = isinstance(meaning, (exp.Column, exp.Literal, exp.Anonymous))
        column.replace(meaning.copy() if is_simple else exp.paren(meaning))
    decided = [select.args.get(clause) for clause in ("where", "having", "qualify")]
    if any(clause is not None and has_call(clause) for clause in decided) and not is_total(mapped):
        return None  # it would be evaluated for rows that an answer was to keep away from it
    return mapped


def _kept_as_a_whole(select: exp.Select) -> set[str]:
    """Texts by which rows of a query may be dropped before it runs; "" stands for any."""
    distinct, group = select.args.get("distinct"), select.args.get("group")
    if (
        any(select.args.get(k) for k in _OTHER_ROWS)
        or (distinct is not None and distinct.args.get("on") is not None)
        or any(isinstance(node, exp.Window) for node in own(select))
    ):
        return set()
    if group is not None:
        plain = not any(v for k, v in group.args.items() if k != "expressions")
        return {key(each) for each in group.expressions} if plain else set()
    return set() if any(is_aggregate(node) for node in own(select)) else {""}


def _meaning(column: exp.Column, select: exp.Select) -> exp.Expr | None:
    """What an output of a query is computed from; None if it cannot be told."""
    stars = [item for item in select.expressions if item.is_star]
    named = [item for item in select.expressions if not item.is_star]
    found = [item for item in named if item.output_name.lower() == column.name.lower()]
    if any(isinstance(n, exp.Columns) or is_expanding(n) for item in named for n in own(item)):
        return None
    if len(found) == 1 and not stars:
        return cast(exp.Expr, found[0].unalias())
    source = select.args.get("from_")
    plain = len(stars) == 1 and not any(
        stars[0].find(exp.Star).args.get(k) for k in ("except_", "replace", "rename")
    )
    if found or not plain or source is None or select.args.get("joins"):
        return None
    if select.args.get("laterals") or source.this.args.get("joins"):
        return None
    return exp.column(column.this.copy())


# -- limit below -------------------------------------------------------------------------------


def _push_limit(select: exp.Select, relation: exp.Expr, target: exp.Expr) -> bool:
    """Hand LIMIT and ORDER BY down where a query only shows the rows of another."""
    order = select.args.get("order")
    if (
        select.args.get("limit") is None
        or len(relations(select)) != 1
        or any(select.args.get(k) for k in _MORE)
        or any(
            isinstance(node, exp.Window) or is_aggregate(node) or is_expanding(node)
            for item in select.expressions
            for node in own(item)
        )
    ):
        return False
    keys = order_by_columns(select) if order is not None else None
    if order is not None and (keys is None or not all(map(is_cheap, keys.expressions))):
        return False
    if isinstance(target, exp.Anonymous):
        return _limit_call(target, select, keys)
    if not isinstance(target, exp.Select) or not _may_be_cut(target, keys):
        return False
    for column in _columns(keys) if keys is not None else []:
        column.replace(exp.column(column.this.copy()))
    _move_limit(select, target, keys)
    return True


def _may_be_cut(target: exp.Select, order: exp.Order | None) -> bool:
    """Whether a query may order and cut its rows itself."""
    if any(target.args.get(k) for k in ("limit", "offset", "sample")):
        return False
    if order is not None and target.args.get("order"):
        return False
    meanings = [_meaning(column, target) for column in (_columns(order) if order else [])]
    return all(meaning is not None and not has_call(meaning) for meaning in meanings)


def _move_limit(select: exp.Select, target: exp.Select, order: exp.Order | None) -> None:
    if order is not None:
        target.set("order", order)
    for clause in ("limit", "offset"):
        part = select.args.get(clause)
        if part is not None:
            select.set(clause, None)
            target.set(clause, part)


# -- FROM smart_llm(..) ------------------------------------------------------------------------


def _add_to_call(call: exp.Anonymous, condition: exp.Expr) -> bool:
    inner = _rows_of(call)
    if inner is None or any(column.name.lower() in DETAIL for column in _columns(condition)):
        return False
    mapped = condition.copy()
    for column in _columns(mapped):
        bare = exp.column(column.this.copy())
        if column is mapped:
            mapped = bare
        else:
            column.replace(bare)
    where = inner.args.get("where")
    held = [where.this] if where is not None else []
    inner.set("where", exp.Where(this=conjunction([*held, mapped])))
    _set_rows(call, inner)
    return True


def _limit_call(call: exp.Anonymous, select: exp.Select, order: exp.Order | None) -> bool:
    columns = _columns(order) if order is not None else []
    inner = _rows_of(call)
    if inner is None or any(column.name.lower() in DETAIL for column in columns):
        return False
    for column in columns:
        column.replace(exp.column(column.this.copy()))
    _move_limit(select, inner, order)
    _set_rows(call, inner)
    return True


def _rows_of(call: exp.Anonymous) -> exp.Select | None:
    """A query for the rows that the first argument of a call in FROM names."""
    argument = call.expressions[0]
    if isinstance(argument, (exp.PropertyEQ, exp.Kwarg)):
        return None
    if isinstance(argument, exp.Subquery) and argument.meta.get("pushed"):
        return argument.this  # type: ignore[no-any-return]
    source = source_of(argument)
    if source is None:
        return None
    return exp.Select(expressions=[exp.Star()], from_=exp.From(this=source))


def _set_rows(call: exp.Anonymous, inner: exp.Select) -> None:
    argument = call.expressions[0]
    if argument is not inner.parent:
        rows = exp.Subquery(this=inner)
        rows.meta["pushed"] = True
        argument.replace(rows)
