"""What happens to a statement around the query in which its calls are planned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from smartsql.errors import UnplannableCallError
from smartsql.sql.normalise.dml.changes import Change, deleted, updated
from smartsql.sql.normalise.dml.inserts import Columns, inserted
from smartsql.sql.normalise.dml.merges import merged
from smartsql.sql.normalise.text.disguised import with_selects, with_subqueries
from smartsql.sql.normalise.text.parameters import numbered_parameters
from smartsql.sql.normalise.text.shapes import CHANGES, Portion, Statement, portion, read
from smartsql.sql.normalise.text.words import call_texts

_STORED = (
    "Store answers instead: add a plain column and fill it with UPDATE .. SET x = smart_llm(..), "
    "or CREATE TABLE .. AS SELECT .., smart_llm(..)."
)


@dataclass(frozen=True, slots=True)
class Planner:
    """What statements need of the rules for queries.

    Attributes:
        plan: a query, rewritten if needed.
        columns_of: names of the columns that a query text would have, or None; runs nothing.
        written_out: a query with the macros and views that lead to calls written out.
    """

    plan: Callable[[str], str]
    columns_of: Columns
    written_out: Callable[[str], str] = lambda query: query


def plan_statement(text: str, planner: Planner) -> str:
    """One statement, rewritten if needed.

    Args:
        text: its parameters stand between blanks.

    Raises:
        UnplannableCallError: a call that no rewriting helps.
        QueryError: it cannot be read.
    """
    numbered = with_subqueries(numbered_parameters(text))
    statement = read(numbered)
    calls = call_texts(numbered)
    if statement is None or not (calls or statement.kind in CHANGES):
        return text  # macros in queries are written out already
    found = query_portion(statement, planner.columns_of)
    if found is not None:
        planned = _planned_portion(found, planner)
    else:
        change = change_of(statement, planner.columns_of)
        if change is None:
            _refuse_definition(statement)
            return text
        planned = _planned_change(change, planner, may_stay=not calls)
    return text if planned is None else f"{statement.prefix}{planned}{statement.end}"


def _planned_portion(found: Portion, planner: Planner) -> str | None:
    """A statement with its query planned; None if it may stay as it is."""
    _refuse_around(found)
    query = planner.written_out(found.query) if found.kind in CHANGES else found.query
    if not call_texts(query):
        return None
    planned = planner.plan(with_selects(query))
    if planned == query and found.exact:
        return None
    return f"{found.head}{planned}{found.tail}"


def _planned_change(change: Change, planner: Planner, *, may_stay: bool) -> str | None:
    """A change over its planned source; None if it may stay as it is.

    Args:
        may_stay: whether it has no call but those of macros and views.
    """
    if change.is_ours and change.native:
        return None
    source = planner.written_out(change.source)
    if may_stay and source == change.source:
        return None
    planned = planner.plan(with_selects(source))
    if planned == source == change.source and change.native:
        return None
    return change.write(planned)


def query_portion(statement: Statement, columns_of: Columns) -> Portion | None:
    """The query of a statement and what stands around it; None for changes and definitions."""
    if statement.kind == "INSERT":
        return inserted(statement, columns_of)
    return portion(statement)


def change_of(statement: Statement, columns_of: Columns) -> Change | None:
    """A statement that changes rows in place; None for others."""
    kind = statement.kind
    if kind == "UPDATE":
        return updated(statement)
    if kind == "DELETE":
        return deleted(statement)
    return merged(statement, columns_of) if kind == "MERGE" else None


def _refuse_around(found: Portion) -> None:
    """Refuse calls in what stands around the query of a statement.

    Raises:
        UnplannableCallError: INSERT .. ON CONFLICT, RETURNING.
    """
    for text in (found.head, found.tail):
        for call in call_texts(text):
            raise UnplannableCallError(
                call,
                f"{found.kind} outside its query",
                "Compute it in the query as a column and store that: INSERT INTO t SELECT .., "
                "smart_llm(..) FROM .. ON CONFLICT DO UPDATE SET x = excluded.x; what RETURNING "
                "shows can be selected afterwards.",
            )


def _refuse_definition(statement: Statement) -> None:
    """Refuse calls in definitions of tables and indexes, and in arguments of EXECUTE.

    Raises:
        UnplannableCallError: there is one.
    """
    words = statement.words
    call = next(iter(call_texts(words.text)), None)
    if call is None:
        return
    if statement.kind == "EXECUTE":
        raise UnplannableCallError(
            call,
            "the arguments of EXECUTE",
            "Read the answer first: SET VARIABLE v = smart_llm(..); EXECUTE p(getvariable('v')).",
        )
    is_macro = words.find(("MACRO", "FUNCTION"), 0, min(6, len(words))) is not None
    if statement.kind == "CREATE" and words.find(("INDEX",), 0, min(6, len(words))) is not None:
        raise UnplannableCallError(call, "an index", _STORED)
    if statement.kind == "ALTER" or (
        statement.kind == "CREATE"
        and not is_macro
        and words.find(("TABLE",), 0, min(6, len(words))) is not None
    ):
        raise UnplannableCallError(call, "a DEFAULT, CHECK or generated column", _STORED)
