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

from smartsql.errors import QueryError
from smartsql.sql import macros
from smartsql.sql.alone import Alone
from smartsql.sql.barrier import Barrier
from smartsql.sql.explaining import plan_with_previews
from smartsql.sql.interrupts import hearing
from smartsql.sql.misplaced import misplaced_call, unusable_structure
from smartsql.sql.normalise import mentions_smart_call, normalise
from smartsql.sql.normalise.previews import explained_statement
from smartsql.sql.normalise.stored.inlining import Stored
from smartsql.sql.normalise.text.parameters import separated
from smartsql.sql.normalise.text.words import is_readable
from smartsql.sql.previewing import call_sites, previewed, reckoned
from smartsql.sql.protocol import Engine
from smartsql.sql.relations import explain_relations, let_duckdb_see_variables, tell_relations
from smartsql.sql.smart_tasks import carried_out, mentions_smart_task, task_statement
from smartsql.sql.sources import Source, call_sources
from smartsql.sql.unread import Unread

Sql = str | duckdb.Statement

_EXPLAIN = re.compile(r"\bEXPLAIN\b", re.IGNORECASE)

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
        self._stored = Stored()
        self._alone = Alone()
        self.engine = barrier.engine
        self._unread = Unread(con, barrier, self._number)
        let_duckdb_see_variables(con)
        explain_relations()
        tell_relations(con, self._unread)
        _open.add(self)

    # -- statements ------------------------------------------------------------------------

    def execute(self, query: Sql, parameters: object = None) -> Self:
        """Run statements; as in DuckDB, the result is fetched from the connection.

        Parameters belong to the last statement; one that fails leaves those before it done.
        """
        self._make_way(query)
        *earlier, last = self._pieces(query)
        self._run_through(earlier)
        self._run(last, parameters)
        return self

    def executemany(self, query: Sql, parameters: object = None) -> Self:
        """Run a statement, the last of a text, for each of several parameter sets."""
        self._make_way(query)
        *earlier, last = self._pieces(query)
        self._run_through(earlier)
        with self._statement(last):
            self._unread.began(last)
            self._con.executemany(self._planned(last), parameters)
        return self

    def sql(self, query: Sql, **options: Any) -> duckdb.DuckDBPyRelation:
        """A relation over a query, the last of a text; it runs, and may spend, when it is read."""
        *earlier, last = self._pieces(query)
        self._run_through(earlier)
        explained = self._instead(last, options.get("params"))
        with self._statement(last, anew=not self._unread.is_running()):
            relation: duckdb.DuckDBPyRelation
            if explained is None:
                relation = self._con.sql(self._planned(last), **options)
            else:
                relation = self._con.sql(explained[0], params=explained[1])
            self._unread.lent()
        return relation

    query = sql
    from_query = sql

    def preview(self, query: str, parameters: object = None) -> list[Any]:
        """What the calls of a text would spend: one preview for each, from the engine.

        Of statements that write, of PREPARE and EXECUTE, the query in them is run up to its smart
        calls, which are answered with NULL; nothing is written. Calls in views count too.

        Args:
            query: one or more statements.
            parameters: of the last one.

        Raises:
            QueryError: a statement with calls reads what one before it changes.
        """
        self._make_way()
        with self._statement(query):
            # a busy connection refuses here, its sets untouched
            self._con.execute("SELECT 1").fetchall()
            macros.introduce(self._con, self._number)
            found: list[Any] = []
            for source in self._sources(query, parameters):
                found += reckoned(
                    self._con, self._barrier, self._number, source.query, source.parameters
                )
            return found

    def has_calls(self, query: str) -> bool:
        """Whether running a text may ask models, be it through calls of views it reads."""
        if not is_readable(query):
            return False  # DuckDB says what is wrong with it
        self._make_way()
        try:
            with self._errors(query):
                return bool(self._sources(query, None))
        except QueryError:
            return True  # `preview` says why it cannot be previewed

    def rehearse(self, query: Sql) -> list[Any]:
        """Run a statement without models, whatever it is; previews of its calls.

        Its calls, those of its views and prepared statements too, are answered with NULL. What it
        changes otherwise it changes: put it into a transaction that is rolled back.
        """
        self._make_way()
        watched = self._barrier.previewing(self._number, everyone=True)
        with self._statement(query), watched as watch:
            planned = self._planned(query)
            try:
                sites = call_sites(self._con, str(planned))
            except duckdb.Error:  # nothing that can be explained, or running it will tell
                sites = 0
            self._con.execute(planned)
            self._con.complete()
            seen = watch.sightings()
            return previewed(self._barrier, seen, sites - len(seen))

    def rehearse_task(self, query: str) -> None:
        """Let a statement about a task hold for this session only; nothing is kept."""
        about = task_statement(query)
        if about is not None:
            self.engine.rehearse_task(about.name, about.task, lenient=about.lenient)

    def _sources(self, text: str, parameters: object) -> list[Source]:
        """The planned queries behind the statements of a text that would ask."""
        return call_sources(self._con, text, parameters, lambda query: str(self._planned(query)))

    def _pieces(self, query: Sql) -> list[Sql]:
        """The statements of a text that have to be planned one after the other.

        Raises:
            duckdb.ParserException: one of them cannot be read, so none is run.
        """
        text = query.query if isinstance(query, duckdb.Statement) else query
        if not isinstance(text, str) or not (
            mentions_smart_call(text)
            or _EXPLAIN.search(text)
            or mentions_smart_task(text)
            or self._stored.leads_to_call(text, self._con)
        ):
            return [query]
        pieces = separated(text)
        if len(pieces) == 1:
            return [query]
        for piece in pieces:
            if task_statement(piece) is None:
                self._con.extract_statements(piece)
        return list(pieces)

    def _run_through(self, pieces: list[Sql]) -> None:
        """Run statements to their ends; nobody reads their results."""
        for piece in pieces:
            self._run(piece, None)
            with self._errors(piece):
                self.complete()

    def _run(self, query: Sql, parameters: object) -> None:
        explained = self._instead(query, parameters)
        with self._statement(query):
            self._unread.began(query)
            if explained is None:
                self._con.execute(self._planned(query), parameters)
            else:
                self._con.execute(*explained)

    def _instead(self, query: Sql, parameters: object) -> tuple[str, list[str]] | None:
        """A query to run instead of statements that are ours: about tasks, EXPLAIN of calls."""
        text = query.query if isinstance(query, duckdb.Statement) else query
        if not isinstance(text, str) or not (_EXPLAIN.search(text) or mentions_smart_task(text)):
            return None
        if not is_readable(text):
            return None  # DuckDB says what is wrong with it
        about = task_statement(text)
        if about is not None:
            return carried_out(about, self.engine)
        return self._explained(text, parameters)

    def _explained(self, text: str, parameters: object) -> tuple[str, list[str]] | None:
        """For EXPLAIN of smart calls: a query for DuckDB's plan with the calls' preview below."""
        explained = explained_statement(text)
        if explained is None:
            return None
        options, rest = explained
        try:
            asks = bool(self._sources(rest, parameters))
            previews = self.preview(rest, parameters) if asks else []
        except duckdb.Error:
            if mentions_smart_call(rest):
                raise
            return None  # DuckDB says what is wrong with it
        if not previews:
            return None
        with self._errors(text):
            rows = self._con.execute(self._planned(text), parameters).fetchall()
        return plan_with_previews(rows, previews, as_json="JSON" in options.upper())

    # -- life ------------------------------------------------------------------------------

    def cursor(self) -> Self:
        """Another session on the same database and engine."""
        con = self._con.cursor()
        macros.create_macros(con)
        return type(self)(con, self._barrier)

    duplicate = cursor

    def interrupt(self) -> None:
        """Stop what runs on this connection: model calls first, then DuckDB."""
        self._unread.interrupt()

    def close(self) -> None:
        """Close the connection; harmless if it is closed.

        Raises:
            duckdb.Error: a statement is running on it, which goes on unharmed.
        """
        with self._alone, self._unread.unwanted():
            self._con.close()
        self._barrier.leave(self._number)
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
        return self._delegated(name, value) if callable(value) else value

    def __repr__(self) -> str:
        return f"<smartsql session on {self._con!r}>"

    # -- inside ----------------------------------------------------------------------------

    def _planned(self, query: Sql) -> Sql:
        text = query.query if isinstance(query, duckdb.Statement) else query
        if not isinstance(text, str):
            return query
        leads = self._stored.leads_to_call(text, self._con)
        written = self._stored.written_out(text, self._con) if leads else text
        if not (leads or mentions_smart_call(written)):
            return query
        self._unread.expect_calls()
        self._barrier.wording(self._number).note(written)
        planned = normalise(
            written, self._con, lambda part: self._stored.written_out(part, self._con)
        )
        return query if planned == written else planned

    def _delegated(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def delegate(*args: Any, **kwargs: Any) -> Any:
            with self._errors():
                result = method(*args, **kwargs)
            self._unread.called(name, result, (*args, *kwargs.values()))
            return self if result is self._con else result

        return delegate

    def _make_way(self, query: object = None) -> None:
        """End what earlier statements left running, before anything of the next one is done."""
        with self._alone, self._errors():
            if self._unread.end(query):
                self._barrier.release(self._number)

    @contextmanager
    def _statement(self, query: Sql, *, anew: bool = True) -> Iterator[None]:
        """One statement: its errors are ours, and earlier statements' sets can go.

        Args:
            anew: nothing runs whose rows have to keep the number of their own statement.
        """
        with self._alone, ExitStack() as stack:
            if anew:
                stack.enter_context(self._barrier.statement(self._number))
            with self._errors(query):
                yield

    @contextmanager
    def _errors(self, query: object = None) -> Iterator[None]:
        """Raise the error of a call itself instead of DuckDB's account of it."""
        text = query.query if isinstance(query, duckdb.Statement) else query
        self._barrier.take_failure(self._number)
        try:
            with hearing(self.interrupt):
                yield
        except KeyboardInterrupt:
            self._unread.drop()
            raise
        except (duckdb.Error, RuntimeError) as error:
            failure = self._barrier.take_failure(self._number)
            if failure is None and isinstance(text, str):
                failure = unusable_structure(error, text)
                failure = failure or misplaced_call(error, text, self._con)
            if failure is None:
                raise
            raise failure from error


_open: weakref.WeakSet[Connection] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close what is still open at exit; DuckDB reports leaks at length otherwise."""
    with ExitStack() as sessions:  # one that cannot be closed does not keep the others open
        for session in list(_open):
            sessions.callback(session.close)
