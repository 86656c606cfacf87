"""What statements with calls may have left running on a connection: results read in part.

DuckDB goes on with a statement in the background while its result is read. It ends that when the
next one begins, which is too late to tell the rows of the two apart: inside `BEGIN` both have one
transaction. So what is left is ended first, and only then is the next statement given its number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import duckdb

from smartsql.sql.barrier import Barrier
from smartsql.sql.smart_tasks import mentions_smart_task

_WHOLE = frozenset(
    {
        *("abort", "complete", "df", "fetch_df", "fetchall", "fetchdf", "fetchnumpy"),
        *("tf", "to_arrow_reader", "to_arrow_table", "torch"),
    }
)
"""Methods after which nothing of a result is left."""

_CHANGES = re.compile(r"\b(nextval|insert|update|delete|merge|into)\b", re.IGNORECASE)


class Unread:
    """The result of one connection that may still be running; for one thread at a time.

    Args:
        con: the connection.
        number: the connection's.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, barrier: Barrier, number: int) -> None:
        self._con = con
        self._barrier = barrier
        self._number = number
        self._asks = False
        self._text: str | None = None
        self._has_lent = False

    def expect_calls(self) -> None:
        """From now on statements may have calls: one was written, maybe in PREPARE."""
        self._asks = True

    def began(self, query: object) -> None:
        """A statement has a result that is to be fetched from the connection."""
        self._text = str(getattr(query, "query", query))

    def lent(self) -> None:
        """A relation was made, which anybody may read at any time."""
        self._has_lent = True

    @property
    def asks(self) -> bool:
        """Whether calls can be behind what runs."""
        return self._asks

    def interrupt(self) -> None:
        """Stop what runs on the connection: model calls first, then DuckDB."""
        self._barrier.interrupt(self._number)
        self._con.interrupt()

    def interrupted(self) -> AbstractContextManager[None]:
        """A block within which no call goes on."""
        return self._barrier.interrupted(self._number)

    def called(self, method: str, result: object, arguments: tuple[object, ...]) -> None:
        """A method of the connection returned a result."""
        if method in _WHOLE or _is_end(method, result, arguments):
            self._text = None
        elif isinstance(result, duckdb.DuckDBPyRelation):
            self._has_lent = True

    @property
    def may_run(self) -> bool:
        """Whether calls of an earlier statement may still be reached."""
        return self._asks and (self._text is not None or self._has_lent)

    def is_running(self) -> bool:
        """Whether there is a result that is not read to its end; it stays as it is."""
        if not self.may_run:
            return False
        try:
            self._con.sql("SELECT 1").fetchall()  # DuckDB refuses relations until then
        except duckdb.ResourceInUseException:
            return True
        except duckdb.Error:
            return False
        return False

    def end(self, query: object = None) -> bool:
        """End what runs, as the next statement would; whether something may have run.

        Calls in flight are cancelled, for nobody can read their answers any more. A statement
        that changes something is not cancelled, since DuckDB runs it to its end.

        Args:
            query: the next statements; if they cannot be parsed, nothing is ended.

        Raises:
            duckdb.ParserException: they cannot be parsed.
            duckdb.ResourceInUseException: another thread runs a statement, or a reader is open;
                nothing was disturbed.
            duckdb.Error: what ran has failed.
        """
        if not self.may_run:
            return False
        if isinstance(query, str) and not mentions_smart_task(query):
            self._con.extract_statements(query)
        with self.unwanted():
            self._con.execute("")
        self._text = None
        if self._has_lent:
            # an empty text is not refused while a reader is open; a failed transaction is heard of
            # by the next statement
            with suppress(duckdb.TransactionException):
                self._con.execute("SELECT 1").fetchall()
        return True

    def drop(self) -> None:
        """End a result whose reading was interrupted."""
        with self.interrupted(), suppress(duckdb.Error, RuntimeError):
            self._con.execute("")
            self._text = None

    @contextmanager
    def unwanted(self) -> Iterator[None]:
        """Within this block nobody waits for the calls of a result that was not read.

        They are cancelled, unless the statement also changes something.

        Raises:
            duckdb.ResourceInUseException: another thread runs a statement; its calls go on.
        """
        if not self._asks or self._text is None:
            yield
            return
        _ = self._con.rowcount  # the cheapest that is refused
        if _CHANGES.search(self._text):
            yield
            return
        with self.interrupted():
            yield


def _is_end(method: str, result: object, arguments: tuple[object, ...]) -> bool:
    """Whether a fetch found no more rows."""
    if method == "fetchone":
        return result is None
    return method == "fetchmany" and result == [] and 0 not in arguments
