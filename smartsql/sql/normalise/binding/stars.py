"""`*` and `COLUMNS(..)` written out as the columns they stand for, as DuckDB binds them.

SELECT max(smart_llm(COLUMNS('^(r|n)$'))) FROM t
SELECT max(smart_llm("r")) AS "r", max(smart_llm("n")) AS "n" FROM t
"""

from __future__ import annotations

from collections import Counter

from sqlglot import exp

from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.calls.clauses import has_call, is_columns, own_calls, refuse
from smartsql.sql.normalise.syntax.origins import original
from smartsql.sql.normalise.syntax.trees import own

_REASON = "the columns it stands for cannot be told from the text"


def expand_columns(select: exp.Select, names: Names) -> None:
    """Write every COLUMNS(..) of the select list and of WHERE out.

    Raises:
        UnplannableCallError: one that shares its expression with a call cannot be written out.
    """
    for item in list(select.expressions):
        copies = _told(select, item, names)
        if copies:
            _replace_item(select, item, [_named(copy, item, name) for name, copy in copies])
    where = select.args.get("where")
    for condition in _conjuncts(where.this) if where is not None else ():
        copies = _told(select, condition, names)
        if copies:
            condition.replace(exp.paren(exp.and_(*[copy for _, copy in copies]), copy=False))


def expand_stars(select: exp.Select, names: Names) -> bool:
    """Write every `*` and `t.*` of the select list out; False if one cannot be."""
    stars = [item for item in select.expressions if item.is_star]
    if not stars:
        return True
    relations = _columns_by_relation(select, names)
    if relations is None:
        return False
    written = [_columns_of(select, item, relations, names) for item in stars]
    if any(columns is None for columns in written):
        return False
    for item, columns in zip(stars, written, strict=True):
        _replace_item(select, item, columns or [])
    names.changed = True
    return True


def _conjuncts(condition: exp.Expr) -> list[exp.Expr]:
    if isinstance(condition, exp.And):
        return [*_conjuncts(condition.this), *_conjuncts(condition.expression)]
    if isinstance(condition, exp.Paren) and isinstance(condition.this, exp.And):
        return _conjuncts(condition.this)
    return [condition]


def _copies(select: exp.Select, root: exp.Expr, names: Names) -> list[tuple[str, exp.Expr]] | None:
    """An expression for each column that its COLUMNS(..) stands for, with the column's name."""
    marks = [node for node in own(root) if is_columns(node)]
    texts = {original(mark) for mark in marks}
    text = texts.pop()
    if texts or text is None or text.startswith("*") or marks[0].name.lower() != "columns":
        return None
    offered = names.output(select, [marks[0].copy()])
    # a name that stands for two columns, or that an alias would change, tells nothing
    if not offered or len({name.lower() for name in offered}) != len(offered):
        return None
    if isinstance(root, exp.Alias) and "\\" in root.alias:
        return None
    copies = []
    for name in offered:
        copy = root.copy()
        column = exp.column(exp.to_identifier(name, quoted=True))
        for mark in [node for node in own(copy) if is_columns(node)]:
            if mark is copy:
                copy = column
            else:
                mark.replace(column.copy())
        copies.append((name, copy))
    return copies


def _told(select: exp.Select, root: exp.Expr, names: Names) -> list[tuple[str, exp.Expr]]:
    """The same where there is a COLUMNS(..) that can be told; nothing where it may stay.

    Raises:
        UnplannableCallError: it cannot be told, and shares its expression with a call.
    """
    if not any(is_columns(node) for node in own(root)):
        return []
    copies = _copies(select, root, names)
    if copies is None:
        _refuse_if_call(root)
        return []
    names.changed = True
    return copies


def _named(copy: exp.Expr, item: exp.Expr, name: str) -> exp.Expr:
    if isinstance(item, exp.Alias):
        return copy
    return exp.Alias(this=copy, alias=exp.to_identifier(name, quoted=True))


def _replace_item(select: exp.Select, item: exp.Expr, new: list[exp.Expr]) -> None:
    items = list(select.expressions)
    place = next(place for place, other in enumerate(items) if other is item)
    select.set("expressions", [*items[:place], *new, *items[place + 1 :]])


def _refuse_if_call(root: exp.Expr) -> None:
    if has_call(root):
        raise refuse(
            own_calls(root)[0],
            "an expression with COLUMNS(..)",
            "Write the columns out, or compute the call in a subquery with a name for it.",
            _REASON,
        )


def _columns_by_relation(
    select: exp.Select, names: Names
) -> list[tuple[exp.Identifier, list[str], set[str]]] | None:
    """Name of each relation in FROM, its columns, and those that USING merges with earlier ones.

    None if the text does not tell.
    """
    if select.args.get("laterals"):
        return None
    joins = select.args.get("joins") or []
    found = []
    known: set[str] = set()
    for part in [select.args["from_"], *joins]:
        relation = part.this
        alias = relation.args.get("alias")
        name = alias.this if alias is not None else relation.this
        if not isinstance(name, exp.Identifier) or relation.args.get("joins"):
            return None
        kind = str(part.args.get("kind") or "").upper()
        if kind in _ONE_SIDED:
            continue
        star = exp.Column(this=exp.Star(), table=name.copy())
        columns = names.output(select, [star])
        if columns is None:
            return None
        using = {column.name.lower() for column in part.args.get("using") or []}
        if str(part.args.get("method") or "").upper() == "NATURAL":
            using = {column.lower() for column in columns} & known
        known |= {column.lower() for column in columns}
        found.append((name, columns, using))
    return found


_ONE_SIDED = frozenset({"SEMI", "ANTI"})


def _columns_of(
    select: exp.Select,
    item: exp.Expr,
    relations: list[tuple[exp.Identifier, list[str], set[str]]],
    names: Names,
) -> list[exp.Expr] | None:
    """The columns that a star stands for; None if they are not those that DuckDB finds."""
    star = item.this if isinstance(item, exp.Column) else item
    if not isinstance(star, exp.Star):
        return None
    table = item.table.lower() if isinstance(item, exp.Column) else ""
    merged = {name for *_, using in relations for name in using}
    excluded = {node.name.lower() for node in star.args.get("except_") or []}
    if any(isinstance(node, exp.Column) and node.table for node in star.args.get("except_") or []):
        return None
    replaced = {alias.alias.lower(): alias.this for alias in star.args.get("replace") or []}
    renamed = {alias.this.name.lower(): alias.alias for alias in star.args.get("rename") or []}
    columns: list[exp.Expr] = []
    outputs: list[str] = []
    for relation, offered, using in relations:
        if table and relation.name.lower() != table:
            continue
        for name in offered:
            if name.lower() in excluded or (not table and name.lower() in using):
                continue
            quoted = exp.to_identifier(name, quoted=True)
            column: exp.Expr = exp.column(
                quoted.copy(),
                table=None if name.lower() in merged and not table else relation.copy(),
            )
            meaning = replaced.get(name.lower())
            column = column if meaning is None else meaning.copy()
            output = renamed.get(name.lower(), name)
            columns.append(exp.Alias(this=column, alias=exp.to_identifier(output, quoted=True)))
            outputs.append(output)
    repeated = [name for name, times in Counter(map(str.lower, outputs)).items() if times > 1]
    if any(name in replaced or name in renamed for name in repeated):
        return None
    return columns if names.output(select, [item.copy()]) == outputs else None
