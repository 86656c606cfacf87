"""Names of outputs: aliases, what they stand for, and those that DuckDB gives to what has none."""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.calls.clauses import is_columns
from smartsql.sql.normalise.syntax.dialect import sql
from smartsql.sql.normalise.syntax.engine import output_names
from smartsql.sql.normalise.syntax.origins import original
from smartsql.sql.normalise.syntax.trees import own


def aliases_of(select: exp.Select) -> dict[str, exp.Expr]:
    """Expressions of the select list by their alias in lower case."""
    return {
        item.alias.lower(): item.this for item in select.expressions if isinstance(item, exp.Alias)
    }


def expand_aliases(select: exp.Select, root: exp.Expr, names: Names) -> exp.Expr:
    """`root` with aliases of the select list replaced by what they stand for.

    A column of FROM hides an alias of the same name, as in DuckDB.
    """
    known = aliases_of(select)
    for _ in range(len(known)):
        used = [
            node
            for node in own(root)
            if isinstance(node, exp.Column) and not node.table and node.name.lower() in known
        ]
        if not used:
            break
        offered = names.from_columns(select)
        used = [node for node in used if offered is not None and node.name.lower() not in offered]
        if not used:
            break
        for node in used:
            meaning = known[node.name.lower()].copy()
            if not isinstance(meaning, (exp.Column, exp.Anonymous, exp.Literal)):
                meaning = exp.paren(meaning, copy=False)
            names.changed = True
            if node is root:
                root = meaning
            else:
                node.replace(meaning)
    return root


def keep_output_name(node: exp.Expr) -> None:
    """Name the output in which a node stands as DuckDB names it now."""
    item = node
    while item.parent is not None and not isinstance(item.parent, exp.Select):
        item = item.parent
    if item.arg_key != "expressions" or isinstance(item, exp.Alias) or item.is_star:
        return
    alias = exp.Alias(alias=exp.to_identifier(default_name(item), quoted=True))
    item.replace(alias)
    alias.set("this", item)


def name_outputs(select: exp.Select, *, only_changed: bool = False) -> None:
    """Give every unnamed output the name DuckDB gives it as it was written.

    Args:
        only_changed: leave those alone that still are as they were written.
    """
    unnamed = [item for item in select.expressions if not _is_named(item)]
    if only_changed:
        unnamed = [item for item in unnamed if sql(item) != original(item)]
    for item, name in zip(unnamed, _default_names(select, unnamed), strict=True):
        alias = exp.Alias(alias=exp.to_identifier(name, quoted=True))
        item.replace(alias)
        alias.set("this", item)


def _default_names(select: exp.Select, items: list[exp.Expr]) -> list[str]:
    written = original(select)
    if select.args.get("windows") and written is not None:  # a name says what its window is
        names = output_names(written)
        if len(names) == len(select.expressions):
            places = {id(item): place for place, item in enumerate(select.expressions)}
            return [names[places[id(item)]] for item in items]
    return default_names(items)


def _is_named(item: exp.Expr) -> bool:
    """Whether an output keeps its name; `_pass_referenced` sees to columns that it renames."""
    if isinstance(item, (exp.Alias, exp.Column)) or item.is_star:
        return True
    return any(isinstance(node, exp.Columns) or is_columns(node) for node in own(item))


def keep_output_names(node: exp.Expr) -> None:
    """Name the outputs in which a node stands, at every level, as DuckDB names them now."""
    around = [node]
    while around[-1].parent is not None:
        around.append(around[-1].parent)
    for part in reversed(around):  # a name inside is a part of those outside
        if isinstance(part.parent, exp.Select):
            keep_output_name(part)


def default_name(node: exp.Expr) -> str:
    """The name DuckDB gives to a column of this expression, as it was written, without alias."""
    return default_names([node])[0]


def default_names(items: list[exp.Expr]) -> list[str]:
    """Names that DuckDB gives to the items of a select list, as they were written."""
    texts = [original(item) or sql(item) for item in items]
    names = output_names(f"SELECT {', '.join(texts)}") if texts else []
    return names if len(names) == len(items) else texts
