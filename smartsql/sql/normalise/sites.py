"""Numbers for calls that would be mistaken for each other.

The barrier tells calls apart by the text of their arguments, as DuckDB gives it: without the
names of relations. Calls with the same text in different queries of one statement, or over
columns of the same name, get a number: smart_llm(review, site := 1).
"""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.binding.outputs import keep_output_name
from smartsql.sql.normalise.calls.clauses import is_call, table_calls
from smartsql.sql.normalise.hoisting.grouped import without_brackets
from smartsql.sql.normalise.syntax.dialect import key as node_key
from smartsql.sql.normalise.syntax.dialect import sql
from smartsql.sql.normalise.syntax.trees import every, in_order, nodes


def number_calls(root: exp.Expr, names: Names) -> None:
    """Number the calls of a statement where their texts are equal but their rows are not."""
    groups: dict[str, dict[tuple[int, str], list[exp.Expr]]] = {}
    calls: list[exp.Expr] = [node for node in in_order(root) if is_call(node)]
    calls += table_calls(root)
    if len(calls) < 2:
        return
    same_query = _queries_of_keys(root)
    for call in calls:
        select = call.find_ancestor(exp.Select)
        in_from = isinstance(call.parent, exp.Table)
        key = (id(call) if in_from else same_query.get(id(select), id(select)), sql(call))
        text = _without_relations(call, skip=1 if in_from else 0)
        groups.setdefault(text, {}).setdefault(key, []).append(call)
    number = 0
    for sites in groups.values():
        for same in list(sites.values())[1:]:
            number += 1
            for call in same:
                if _has_site(call):
                    continue
                names.changed = True
                keep_output_name(call)
                site = exp.PropertyEQ(
                    this=exp.to_identifier("site"), expression=exp.Literal.number(number)
                )
                call.append("expressions", site)


def _queries_of_keys(root: exp.Expr) -> dict[int, int]:
    """Queries inside what GROUP BY groups by, by those with the same text in other clauses.

    DuckDB takes such expressions for the key and evaluates them once, if their texts stay equal.
    """
    found: dict[int, int] = {}
    for select in every(root, exp.Select):
        group = select.args.get("group")
        queries = every(group, exp.Select) if group is not None else []
        if not any(is_call(node) for query in queries for node in every(query, exp.Anonymous)):
            continue
        assert group is not None
        written = [without_brackets(each) for each in group.iter_expressions()]
        keys = {node_key(each): each for each in written if each.find(exp.Select)}
        for node in nodes(select):
            meant = (
                keys.get(node_key(node))
                if isinstance(node, (exp.Condition, exp.Subquery))
                else None
            )
            if meant is not None and meant is not node:
                pairs = zip(every(node, exp.Select), every(meant, exp.Select), strict=True)
                found |= {id(query): id(of_key) for query, of_key in pairs}
    return found


def _has_site(call: exp.Expr) -> bool:
    return any(isinstance(a, exp.PropertyEQ) and a.name.lower() == "site" for a in call.expressions)


def _without_relations(call: exp.Expr, skip: int) -> str:
    """Text of the arguments as the barrier may see it."""
    copy = call.copy()
    copy.set("expressions", copy.expressions[skip:])
    for column in every(copy, exp.Column):
        for part in ("table", "db", "catalog"):
            column.set(part, None)
    return sql(copy).lower()
