"""`FROM smart_llm(.., col)` over anything that FROM takes, written out as the query it stands for.

    FROM smart_llm((SELECT r FROM t WHERE k = 3), r) AS q
    FROM (SELECT * EXCLUDE (__smart), __smart.answer AS answer, .. FROM (
        SELECT *, __smart_details(r) AS __smart FROM (SELECT r FROM t WHERE k = 3) AS t)) AS q

On any connection a macro does this for a table by its name; DuckDB gives macros no queries, no
table functions, no names with a schema in quotes, and takes a name for a column where an outer
relation is called the same. Those are written out here, all others are left to the macro.
"""

from __future__ import annotations

from sqlglot import exp

from smartsql.sql.normalise.binding.names import Names
from smartsql.sql.normalise.binding.scopes import Resolver, levels, visible
from smartsql.sql.normalise.calls.clauses import refuse, table_calls
from smartsql.sql.normalise.calls.signatures import SIGNATURES
from smartsql.sql.normalise.syntax.dialect import sql
from smartsql.sql.sets import DETAIL

_FIRST_SITE = 1000
"""Numbers of written-out calls start here; others of the same text are numbered from 1."""


def plan_table_form(root: exp.Expr, names: Names) -> None:
    """Write calls in FROM out where DuckDB's macro cannot take their first argument.

    Raises:
        UnplannableCallError: the call reads a relation beside it or a query around it.
    """
    for number, call in enumerate(table_calls(root), start=_FIRST_SITE):
        arguments = _arguments(call)
        if "tbl" not in arguments or "col" not in arguments or _is_for_the_macro(call):
            continue
        source = source_of(arguments.pop("tbl"))
        if source is None:
            continue
        written = sql(call)
        query = _written_out(source, arguments, number)
        table = call.parent
        assert isinstance(table, exp.Table)
        subquery = exp.Subquery(this=query, alias=_alias(table))
        for key in ("joins", "pivots", "sample"):
            if table.args.get(key):
                subquery.set(key, table.args[key])
        table.replace(subquery)
        names.changed = True
        _refuse_correlated(written, query, names)


def _arguments(call: exp.Anonymous) -> dict[str, exp.Expr]:
    """Arguments by their names."""
    positions = iter(("tbl", "col", *SIGNATURES["smart_llm"][1:]))
    found: dict[str, exp.Expr] = {}
    for argument in call.expressions:
        if isinstance(argument, (exp.PropertyEQ, exp.Kwarg)):
            found[argument.name.lower()] = argument.expression
        else:
            found[next(positions, "")] = argument
    return found


def _is_for_the_macro(call: exp.Anonymous) -> bool:
    """Whether DuckDB's macro finds the table: named by a text or one word, beside no other."""
    table = _arguments(call)["tbl"]
    named = isinstance(table, exp.Literal) or (isinstance(table, exp.Column) and not table.table)
    return named and not any(visible(select, child, call) for select, child in levels(call))


def source_of(table: exp.Expr) -> exp.Expr | None:
    """What FROM would read for the first argument; None if it is nothing FROM knows."""
    while isinstance(table, exp.Paren):
        table = table.this
    if isinstance(table, exp.Literal) and table.is_string:
        return exp.Table(this=exp.to_identifier(table.name, quoted=True))
    if isinstance(table, exp.Subquery):
        query = table.copy()
        if not query.alias:
            query.set("alias", exp.TableAlias(this=exp.to_identifier("t")))
        return query
    if isinstance(table, exp.Column):
        return exp.Table(
            this=table.this.copy(),
            **{
                key: part.copy()
                for key, part in zip(
                    ("db", "catalog"), (table.args.get("table"), table.args.get("db")), strict=True
                )
                if part is not None
            },
        )
    if isinstance(table, exp.Anonymous):
        return exp.Table(this=table.copy())
    if isinstance(table, exp.Dot) and isinstance(table.expression, exp.Anonymous):
        return exp.Table(this=table.copy())
    return None


def _written_out(source: exp.Expr, arguments: dict[str, exp.Expr], number: int) -> exp.Select:
    """The query that the macro stands for."""
    options = {"site": exp.Literal.number(number), **arguments}
    column = options.pop("col")
    details = exp.Anonymous(
        this="__smart_details",
        expressions=[
            column.copy(),
            *[
                exp.PropertyEQ(this=exp.to_identifier(name), expression=value.copy())
                for name, value in options.items()
            ],
        ],
    )
    inner = exp.Select(
        expressions=[exp.Star(), exp.alias_(details, "__smart")], from_=exp.From(this=source)
    )
    return exp.Select(
        expressions=[
            exp.Star(except_=[exp.to_identifier("__smart")]),
            *[exp.alias_(exp.column(name, table="__smart"), name) for name in DETAIL],
        ],
        from_=exp.From(this=exp.Subquery(this=inner)),
    )


def _alias(table: exp.Table) -> exp.TableAlias:
    """The name of the call's rows; DuckDB calls them as the function."""
    alias = table.args.get("alias")
    if isinstance(alias, exp.TableAlias):
        if alias.this is None:
            alias.set("this", exp.to_identifier("smart_llm"))
        return alias
    return exp.TableAlias(this=exp.to_identifier(table.this.name))


def _refuse_correlated(written: str, query: exp.Select, names: Names) -> None:
    foreign = Resolver(names).foreign(query)
    if foreign:
        raise refuse(
            exp.Var(this=written),
            f"FROM, reading {sql(foreign[0][0])} of another relation",
            "Call it over all rows and join: FROM t JOIN smart_llm(u, col) q ON q.id = t.id; or "
            "call smart_llm(..) in the SELECT list.",
            "it would run once for each row of that relation",
        )
