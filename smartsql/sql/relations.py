"""Relations of a session: what they see, how they end, and advice about calls in their methods.

    con.table('t').filter("smart_llm(r) = 'a'")

DuckDB binds these texts itself, without a session, and speaks of window functions. A relation
cannot be wrapped, since DuckDB takes only its own class back (joins, `FROM relation`), so the
methods of the class are: they do what they did, and explain an error about a smart call. A reader
that is dropped before its end also ends the calls that it waits for, which DuckDB would wait out.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Self

import duckdb
import pyarrow as pa

from smartsql.errors import QueryError
from smartsql.sql.interrupts import hearing, interruptible
from smartsql.sql.misplaced import speaks_of_windows
from smartsql.sql.normalise import mentions_smart_call
from smartsql.sql.unread import Unread

_METHODS = ("filter", "aggregate", "join", "order", "project", "select", "sort")
_MARK = "__smartsql__"

_RUNS = (
    *("create", "df", "fetchall", "fetchdf", "fetchnumpy", "insert", "insert_into", "iter_rows"),
    *("materialize", "pl", "show", "tf", "to_arrow_table", "to_csv", "to_df", "to_dicts"),
    *("to_parquet", "to_table", "torch", "update", "write_csv", "write_parquet"),
    *("__len__", "__repr__", "__str__"),
)
"""What reads a relation, so that it runs."""

_sessions: weakref.WeakValueDictionary[int, Unread] = weakref.WeakValueDictionary()
"""By the identity of their connections, which live as long as they do."""


def explain_relations() -> None:
    """Have the methods of relations explain misplaced smart calls; harmless if they do."""
    for name in _METHODS:
        _replace(name, _explaining)
    for name in _RUNS:
        _replace(name, _hearing)
    _replace("to_arrow_reader", _ending)
    _replace("__arrow_c_stream__", _streaming)


def tell_relations(con: duckdb.DuckDBPyConnection, session: Unread) -> None:
    """Have relations of a session end their calls at Ctrl-C, and where a reader is dropped."""
    _sessions[id(con)] = session


def _replace(name: str, replacement: Callable[[str, Callable[..., Any]], Any]) -> None:
    method = getattr(duckdb.DuckDBPyRelation, name, None)
    if method is not None and not hasattr(method, _MARK):
        replaced = replacement(name, method)
        setattr(replaced, _MARK, True)
        setattr(duckdb.DuckDBPyRelation, name, replaced)


def _session(relation: object) -> Unread | None:
    """What ends the calls of a relation; None where there can be none."""
    mine = _sessions.get(id(getattr(relation, "_con", None)))
    return mine if mine is not None and mine.asks else None


def _hearing(_: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def heard(relation: Any, *args: Any, **kwargs: Any) -> Any:
        session = _session(relation)
        if session is None:
            return method(relation, *args, **kwargs)
        with hearing(session.interrupt):
            return method(relation, *args, **kwargs)

    return heard


def _ending(_: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def ending(relation: Any, *args: Any, **kwargs: Any) -> Any:
        session = _session(relation)
        if session is None:
            return method(relation, *args, **kwargs)
        with hearing(session.interrupt):
            reader = method(relation, *args, **kwargs)
        return pa.RecordBatchReader.from_batches(reader.schema, _Batches(reader, session))

    return ending


def _streaming(_: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def streaming(relation: Any, requested_schema: object | None = None) -> Any:
        if _session(relation) is None:
            return method(relation, requested_schema)
        return relation.to_arrow_reader().__arrow_c_stream__(requested_schema)

    return streaming


class _Batches(Iterator[pa.RecordBatch]):
    """The batches of a reader; dropped before their end, they end the calls of its statement."""

    def __init__(self, reader: pa.RecordBatchReader, session: Unread) -> None:
        self._reader = reader
        self._session = session

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> pa.RecordBatch:
        if self._reader is None:
            raise StopIteration
        try:
            if threading.current_thread() is not threading.main_thread():
                return self._reader.read_next_batch()
            # it looks for no signals while it waits
            return interruptible(self._reader.read_next_batch, self._session.interrupt)
        except Exception:  # its end, or an error of any kind: another statement may begin now
            self._reader = None
            raise

    def __del__(self) -> None:
        if self._reader is None:
            return
        with self._session.interrupted():
            self._reader = None


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

    return explaining


def let_duckdb_see_variables(con: duckdb.DuckDBPyConnection) -> None:
    """Let `FROM df` find variables of our callers; DuckDB looks one frame up, which is ours."""
    try:
        con.execute("SET GLOBAL python_scan_all_frames = true")
    except duckdb.Error:  # a locked configuration: only this convenience is lost
        return
