"""Numbers for calls that would be mistaken for each other.

The barrier tells calls apart by the text of their arguments, as DuckDB gives it: without the
names of relations. Calls with the same text in different queries of one statement, or over
columns of the same name, get a number: smart_llm(review, site := 1).
"""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.calls import is_call
from smartsql.sql.normalise.dialect import default_name, sql
from smartsql.sql.normalise.nest import Names
from smartsql.sql.normalise.table_form import table_calls


def number_calls(root: exp.Expr, names: Names) -> None:
    """Number the calls of a statement where their texts are equal but their rows are not."""
    groups: dict[str, dict[tuple[int, str], list[exp.Expr]]] = {}
    calls: list[exp.Expr] = [
        node for node in root.find_all(exp.Anonymous, bfs=False) if is_call(node)
    ]
    for call in [*calls, *table_calls(root)]:
        select = call.find_ancestor(exp.Select)
        in_from = isinstance(call.parent, exp.Table)
        key = (id(call) if in_from else id(select), sql(call))
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
                _keep_name(call)
                site = exp.PropertyEQ(
                    this=exp.to_identifier("site"), expression=exp.Literal.number(number)
                )
                call.append("expressions", site)


def _has_site(call: exp.Expr) -> bool:
    return any(isinstance(a, exp.PropertyEQ) and a.name.lower() == "site" for a in call.expressions)


def _without_relations(call: exp.Expr, skip: int) -> str:
    """Text of the arguments as the barrier may see it."""
    copy = call.copy()
    copy.set("expressions", copy.expressions[skip:])
    for column in copy.find_all(exp.Column):
        for part in ("table", "db", "catalog"):
            column.set(part, None)
    return sql(copy).lower()


def _keep_name(call: exp.Expr) -> None:
    """Name the output in which a call stands as DuckDB names it without the number."""
    item: exp.Expr = call
    while item.parent is not None and not isinstance(item.parent, exp.Select):
        item = item.parent
    if item.arg_key != "expressions" or isinstance(item, exp.Alias) or item.is_star:
        return
    alias = exp.Alias(alias=exp.to_identifier(default_name(item), quoted=True))
    item.replace(alias)
    alias.set("this", item)
