"""Advice for smart calls in methods of relations: `con.table('t').filter("smart_llm(r) = 'a'")`.

DuckDB binds these texts itself, without a session, and speaks of window functions. A relation
cannot be wrapped, since DuckDB takes only its own class back (joins, `FROM relation`), so the
methods of the class are: they do what they did, and explain an error about a smart call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import duckdb

from smartsql.errors import QueryError
from smartsql.sql.misplaced import speaks_of_windows
from smartsql.sql.normalise import mentions_smart_call

_METHODS = ("filter", "aggregate", "join", "order", "project", "select", "sort")
_MARK = "__smartsql__"


def explain_relations() -> None:
    """Have the methods of relations explain misplaced smart calls; harmless if they do."""
    for name in _METHODS:
        method = getattr(duckdb.DuckDBPyRelation, name)
        if not hasattr(method, _MARK):
            setattr(duckdb.DuckDBPyRelation, name, _explaining(name, method))


def _explaining(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def explaining(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except duckdb.BinderException as error:
            texts = [str(value) for value in (*args[1:], *kwargs.values())]
            call = next((text for text in texts if mentions_smart_call(text)), None)
            if call is None or not speaks_of_windows(error):
                raise
            raise QueryError(
                f"{error}\n{name}({call!r}) holds a smart call, which a relation cannot move to "
                f'where DuckDB can run it. Say it in SQL, con.sql("SELECT .. FROM t WHERE '
                f'smart_llm(..) = .."), or compute the call first: '
                f'con.sql("SELECT *, smart_llm(..) AS answer FROM t").{name}(..).'
            ) from error

    setattr(explaining, _MARK, True)
    return explaining
