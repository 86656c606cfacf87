"""A DuckDB connection that understands smart calls."""

from __future__ import annotations

import atexit
import functools
import re
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

import duckdb

from smartsql.sql import macros
from smartsql.sql.barrier import Barrier, Engine
from smartsql.sql.misplaced import misplaced_call
from smartsql.sql.normalise import mentions_smart_call, normalise, previewable

Sql = str | duckdb.Statement

_EXPLAIN = re.compile(r"\s*EXPLAIN\b(?!\s*\(?\s*ANALYZE\b)(\s*\([^)]*\))?", re.IGNORECASE)

# DuckDB advises against Arrow from a connection, and takes our delegation for the place to change
warnings.filterwarnings("ignore", "Arrow output on a DB-API result", module=re.escape(__name__))


def open_session(con: duckdb.DuckDBPyConnection, engine: Engine) -> Connection:
    """A session on a DuckDB connection, which it owns from now on.

    Raises:
        QueryError, ConfigError: see `macros.install`.
    """
    return Connection(con, macros.install(con, engine))


def connect(database: str = ":memory:", *, engine: Engine, **options: Any) -> Connection:
    """Open a database with smart calls answered by `engine`; options as in `duckdb.connect`."""
    con = duckdb.connect(database, **options)
    try:
        return open_session(con, engine)
    except BaseException:
        con.close()  # nobody else has it, and an open one would lock the file
        raise


def register(
    con: duckdb.DuckDBPyConnection, engine: Engine, *, persist: bool = False
) -> duckdb.DuckDBPyConnection:
    """Make smart calls available on any DuckDB connection, which stays as it is.

    Calls work wherever DuckDB allows a window function: in the SELECT list, QUALIFY and ORDER BY,
    and so in CTEs, views, CREATE TABLE AS, INSERT, COPY. A session allows more places.

    Args:
        con: the connection; for a database file, each of its cursors must be registered too.
        engine: what answers.
        persist: store the macros in the database file.

    Raises:
        QueryError, ConfigError: see `macros.install`.
    """
    macros.install(con, engine, persist=persist)
    macros.introduce(con)
    return con


class Connection:
    """Behaves as the DuckDB connection it holds; statements with smart calls are planned first.

    Statements without a smart call, and those whose calls stand where DuckDB can run them,
    reach DuckDB as they are written. Everything that is not defined here is DuckDB's own.

    Attributes:
        engine: what answers the calls.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, barrier: Barrier) -> None:
        self._con = con
        self._barrier = barrier
        self._number = macros.introduce(con)
        self.engine = barrier.engine
        _let_duckdb_see_variables(con)
        _open.add(self)

    # -- statements ------------------------------------------------------------------------

    def execute(self, query: Sql, parameters: object = None) -> Self:
        """Run statements; as in DuckDB, the result is fetched from the connection."""
        explained = self._explained(query, parameters)
        with self._statement(query):
            if explained is None:
                self._con.execute(self._planned(query), parameters)
            else:
                self._con.execute(*explained)
        return self

    def executemany(self, query: Sql, parameters: object = None) -> Self:
        """Run a statement for each of several parameter sets."""
        with self._statement(query):
            self._con.executemany(self._planned(query), parameters)
        return self

    def sql(self, query: Sql, **options: Any) -> duckdb.DuckDBPyRelation:
        """A relation over a query; it runs, and may spend, when it is read."""
        explained = self._explained(query, options.get("params"))
        with self._statement(query):
            relation: duckdb.DuckDBPyRelation
            if explained is None:
                relation = self._con.sql(self._planned(query), **options)
            else:
                relation = self._con.sql(explained[0], params=explained[1])
        return relation

    query = sql
    from_query = sql

    def preview(self, query: str, parameters: object = None) -> list[Any]:
        """What the calls of a query would spend: one preview for each, from the engine.

        Runs the query itself up to its smart calls, which are answered with NULL; of a statement
        that writes (CREATE TABLE AS, INSERT, COPY, CREATE VIEW) only its query.

        Raises:
            QueryError: the text is not one statement with a query in it.
        """
        with self._statement(query):
            planned = self._planned(previewable(query))
            self._con.execute("SELECT 1")  # a busy connection refuses here, its sets untouched
            with self._barrier.previewing(self._number) as previews:
                self._con.execute(planned, parameters)
                self._con.complete()
        return previews

    def _explained(self, query: Sql, parameters: object) -> tuple[str, list[str]] | None:
        """For EXPLAIN of smart calls: a query for DuckDB's plan with the calls' preview below."""
        text = query.query if isinstance(query, duckdb.Statement) else query
        explain = _EXPLAIN.match(text) if isinstance(text, str) else None
        if explain is None or not mentions_smart_call(text):
            return None
        previews = self.preview(text[explain.end() :], parameters)
        with self._errors(text):
            rows = self._con.execute(self._planned(query), parameters).fetchall()
        rows += [("smart_call", str(preview)) for preview in previews]
        values = ", ".join("(?, ?)" for _ in rows)
        return (
            f"SELECT * FROM (VALUES {values}) AS plan(explain_key, explain_value)",
            [cell for row in rows for cell in row],
        )

    # -- life ------------------------------------------------------------------------------

    def cursor(self) -> Self:
        """Another session on the same database and engine."""
        con = self._con.cursor()
        macros.create_macros(con)
        return type(self)(con, self._barrier)

    duplicate = cursor

    def interrupt(self) -> None:
        """Stop what runs on this connection: model calls first, then DuckDB."""
        self.engine.cancel(self._number)
        self._con.interrupt()

    def close(self) -> None:
        """Close the connection; harmless if it is closed.

        Raises:
            duckdb.Error: a statement is running on it, which goes on unharmed.
        """
        self._con.close()
        self._barrier.release(self._number)
        _open.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self._con, name)
        return self._delegated(value) if callable(value) else value

    def __repr__(self) -> str:
        return f"<smartsql session on {self._con!r}>"

    # -- inside ----------------------------------------------------------------------------

    def _planned(self, query: Sql) -> Sql:
        text = query.query if isinstance(query, duckdb.Statement) else query
        if not isinstance(text, str) or not mentions_smart_call(text):
            return query
        planned = normalise(text, self._con)
        return query if planned == text else planned

    def _delegated(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def delegate(*args: Any, **kwargs: Any) -> Any:
            with self._errors():
                result = method(*args, **kwargs)
            return self if result is self._con else result

        return delegate

    @contextmanager
    def _statement(self, query: Sql) -> Iterator[None]:
        """One statement: its errors are ours, and earlier statements' sets can go."""
        text = query.query if isinstance(query, duckdb.Statement) else query
        with self._barrier.statement(self._number), self._errors(text):
            yield

    @contextmanager
    def _errors(self, text: object = None) -> Iterator[None]:
        """Raise the error of a call itself instead of DuckDB's account of it."""
        self._barrier.take_failure(self._number)
        try:
            yield
        except (duckdb.Error, RuntimeError) as error:
            failure = self._barrier.take_failure(self._number)
            if failure is None and isinstance(text, str):
                failure = misplaced_call(error, text, self._con)
            if failure is None:
                raise
            raise failure from error


def _let_duckdb_see_variables(con: duckdb.DuckDBPyConnection) -> None:
    """Let `FROM df` find variables of our callers; DuckDB looks one frame up, which is ours."""
    try:
        con.execute("SET GLOBAL python_scan_all_frames = true")
    except duckdb.Error:  # a locked configuration: only this convenience is lost
        return


_open: weakref.WeakSet[Connection] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close what is still open at exit; DuckDB reports leaks at length otherwise."""
    with ExitStack() as sessions:  # one that cannot be closed does not keep the others open
        for session in list(_open):
            sessions.callback(session.close)
