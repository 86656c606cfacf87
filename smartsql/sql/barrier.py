"""The barrier: all rows of a call are known before its first answer.

The macro `smart_llm` expands to

    __smart_answer(prompt, __smart_seal(histogram(__smart_collect(prompt, ..)) OVER ()))

`__smart_collect` sees every row and returns the number of the set it put the row in. The window
over all rows is a pipeline breaker: no chunk reaches `__smart_seal` before the last row was
collected, and its histogram says how many rows of which set the plan will ask about. The first
`__smart_seal` compares that with what was collected, has the engine answer the set, and later
chunks only look their answers up.

None of the functions is declared to have side effects. DuckDB therefore evaluates equal calls of
a statement once and lets aliases refer to them; what it evaluates early (constants, while it
plans) only collects and never answers, because the window is no constant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from threading import Lock
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smartsql.errors import ParameterError, QueryError, UnplannableCallError
from smartsql.sql.prompts import one_array
from smartsql.sql.protocol import Answers, Call, Engine
from smartsql.sql.sets import DETAIL, KEY_BITS, RowSet, Solve, Token, constant, varying
from smartsql.types import IntArray, Requirement

__all__ = ["DETAIL", "Answers", "Barrier", "Call", "Engine"]

_DETAIL_TYPES = (pa.string(), pa.string(), pa.string(), pa.float64(), pa.float64(), pa.string())

SEPARATOR = "\x1f"
"""Stands between the texts of the arguments in one argument of `__smart_collect`."""

_VOLATILE = re.compile(
    r"\b(random|uuid|uuidv4|uuidv7|gen_random_uuid|nextval|current_query_id)\(", re.IGNORECASE
)
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")

MAX_SETS_PER_CONNECTION = 64
"""Closed sets kept for one connection within one transaction; the oldest go first."""


_statements = count(1)
"""Numbers of statements; one engine may serve several barriers."""


class Barrier:
    """The sets of one database instance, and the functions that fill and read them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.functions: list[Callable[..., pa.Array]] = []
        """Other functions of this instance; kept alive with the barrier."""
        self._lock = Lock()
        self._sets: dict[int, RowSet] = {}
        self._open: dict[Token, RowSet] = {}
        self._numbers = count(1)
        self._clock = count(1)
        self._begun: dict[int, int] = {}
        self._failures: dict[int, BaseException] = {}
        self._previews: dict[int, list[object]] = {}

    # -- the functions behind the SQL ------------------------------------------------------

    def collect(  # one parameter for each SQL argument
        self,
        prompt: pa.ChunkedArray,
        delta: pa.ChunkedArray,
        gamma: pa.ChunkedArray,
        task: pa.ChunkedArray,
        transaction: pa.ChunkedArray,
        text: pa.ChunkedArray,
        site: pa.ChunkedArray,
        connection: pa.ChunkedArray,
    ) -> pa.Array:
        """`__smart_collect`: put the rows in their set; its code for each row."""
        if not len(prompt):
            return pa.array([], pa.int64())
        texts = text[0].as_py()
        token = Token(
            connection[0].as_py() or 0,
            transaction[0].as_py(),
            (texts, site[0].as_py() or 0),
        )
        with self._reporting(token.connection):
            argument = texts.split(SEPARATOR)[0]
            call = _call(argument, one_array(delta), one_array(gamma), one_array(task))
            prompts = one_array(prompt)
            while True:
                codes = self._set_for(token, call).collect(prompts)
                if codes is not None:
                    return pa.array(codes)

    def seal(self, counted: pa.ChunkedArray) -> pa.Array:
        """`__smart_seal`: answer the set when the window has counted it; its number per row."""
        if not len(counted):
            return pa.array([], pa.int64())
        histogram = _entries(one_array(counted))
        row_set = self._get(next(iter(histogram)) >> KEY_BITS)
        with self._reporting(row_set.token.connection):
            row_set.settle(histogram, self._solver(row_set))
        return pa.array(np.full(len(counted), row_set.number, np.int64))

    def answer(self, prompt: pa.ChunkedArray, number: pa.ChunkedArray) -> pa.Array:
        """`__smart_answer`: the answer of each prompt."""
        if not len(prompt):
            return pa.array([], pa.string())
        row_set, places = self._look_up(prompt, number)
        return _taken(row_set, "answer", places, pa.string())

    def detail(self, prompt: pa.ChunkedArray, number: pa.ChunkedArray) -> pa.Array:
        """`__smart_detail`: answer, model, source, confidence, cost and error of each prompt."""
        if not len(prompt):
            return pa.StructArray.from_arrays([pa.array([], t) for t in _DETAIL_TYPES], DETAIL)
        row_set, places = self._look_up(prompt, number)
        columns = [
            _taken(row_set, name, places, kind)
            for name, kind in zip(DETAIL, _DETAIL_TYPES, strict=True)
        ]
        return pa.StructArray.from_arrays(columns, DETAIL)

    # -- what a session does ---------------------------------------------------------------

    @contextmanager
    def statement(self, connection: int) -> Iterator[None]:
        """Within this block a connection runs one statement; then earlier sets can go."""
        begun = next(self._clock)
        before = self._begun.get(connection, 0)
        self._begun[connection] = begun
        try:
            yield
        except BaseException:
            # however it ended, Ctrl-C too: it may never have begun, because another thread's
            # statement still runs, and the sets of that one must stay
            self._begun[connection] = before
            raise
        self.release(connection, before=begun)

    def release(self, connection: int, before: int | None = None) -> None:
        """Forget the sets of a connection: its earlier statements are over.

        Args:
            connection: number of the connection.
            before: keep sets that were opened after this moment.
        """
        with self._lock:
            self._forget(
                row_set
                for row_set in self._sets.values()
                if row_set.token.connection == connection
                and (before is None or row_set.opened < before)
            )

    def take_failure(self, connection: int) -> BaseException | None:
        """The last error raised inside a statement of this connection, once."""
        with self._lock:
            return self._failures.pop(connection, None)

    @contextmanager
    def previewing(self, connection: int) -> Iterator[list[object]]:
        """Within this block the sets of a connection are previewed and answered with NULL."""
        previews: list[object] = []
        self._previews[connection] = previews
        try:
            yield previews
        finally:
            del self._previews[connection]
            self.release(connection)

    @property
    def n_sets(self) -> int:
        """Sets in memory."""
        return len(self._sets)

    # -- inside ----------------------------------------------------------------------------

    def _set_for(self, token: Token, call: Call) -> RowSet:
        """The set that is being collected under a token; a new one where the last is closed."""
        with self._lock:
            row_set = self._open.get(token)
            if row_set is None or row_set.is_closed:
                begun = self._begun.get(token.connection, 0)
                scoped = replace(
                    call,
                    statement=self._statement_of(token, begun),
                    connection=token.connection or None,
                )
                self._make_room(token)
                number = next(self._numbers)
                row_set = RowSet(number, token, scoped, next(self._clock), begun)
                self._sets[number] = self._open[token] = row_set
        if row_set.call != call:
            for name in ("delta", "gamma", "task"):
                values = [str(getattr(c, name)) for c in (row_set.call, call)]
                if values[0] != values[1]:
                    raise varying(name, values, call.text)
        return row_set

    def _statement_of(self, token: Token, begun: int) -> int:
        """Number of the statement that a new set belongs to; holds the lock.

        A session says when a statement begins, which tells those within one `BEGIN` apart; a new
        transaction tells executions apart that no session sees (relations, bare connections).
        """
        for row_set in self._sets.values():
            same = row_set.token.connection == token.connection and row_set.begun == begun
            if same and row_set.token.transaction == token.transaction:
                assert row_set.call.statement is not None
                return row_set.call.statement
        return next(_statements)

    def _make_room(self, token: Token) -> None:
        """Forget what can no longer be asked for; holds the lock.

        A connection runs one statement at a time, so a new transaction ends the older ones of
        the same connection. Connections that were never introduced all have number 0; of them,
        and within one explicit transaction, the oldest closed sets go when there are many.
        """
        mine = [s for s in self._sets.values() if s.token.connection == token.connection]
        if token.connection:
            ended = [s for s in mine if s.token.transaction != token.transaction]
            self._forget(iter(ended))
            mine = [s for s in mine if s.token.transaction == token.transaction]
        spare = len(mine) - MAX_SETS_PER_CONNECTION + 1
        if spare > 0:
            self._forget(iter(sorted(mine, key=lambda s: (not s.is_closed, s.touched))[:spare]))

    def _forget(self, row_sets: Iterator[RowSet]) -> None:
        for row_set in list(row_sets):
            self._sets.pop(row_set.number, None)
            if self._open.get(row_set.token) is row_set:
                del self._open[row_set.token]

    def _get(self, number: int) -> RowSet:
        row_set = self._sets.get(number)
        if row_set is None:
            raise QueryError(
                "the answers of this statement were already released because other statements "
                "ran on its connection; read the result of a statement before the next one."
            )
        row_set.touched = next(self._clock)
        return row_set

    def _look_up(self, prompt: pa.ChunkedArray, number: pa.ChunkedArray) -> tuple[RowSet, pa.Array]:
        row_set = self._get(number[0].as_py())
        with self._reporting(row_set.token.connection):
            return row_set, row_set.find(one_array(prompt))

    def _solver(self, row_set: RowSet) -> Solve:
        previews = self._previews.get(row_set.token.connection)
        if previews is None:
            return self.engine.answer

        def preview(call: Call, prompts: pa.Array, weights: IntArray) -> None:
            previews.append(self.engine.preview(call, prompts, weights))

        return preview

    @contextmanager
    def _reporting(self, connection: int) -> Iterator[None]:
        """Keep an error aside for the session: DuckDB passes on its message only."""
        try:
            yield
        except BaseException as failure:
            # the edge of DuckDB: it would make a message of anything, of Ctrl-C too
            if not isinstance(failure, Exception):  # Ctrl-C: models must not work on
                self.engine.cancel(connection or None)
            with self._lock:
                # an interrupt is what happened; the cancelled engine's error only follows
                if isinstance(self._failures.get(connection), (Exception, type(None))):
                    self._failures[connection] = failure
            raise


def _call(text: str, delta: pa.Array, gamma: pa.Array, task: pa.Array) -> Call:
    """The call with its parameters checked.

    Raises:
        ParameterError: delta, gamma or task vary; delta or gamma are NULL or out of range.
    """
    if _VOLATILE.search(_QUOTED.sub("''", text)):
        raise UnplannableCallError(
            f"smart_llm({text})",
            "an argument that changes at every evaluation",
            "Compute it first, in WITH q AS MATERIALIZED (SELECT .. AS prompt), and call "
            "smart_llm(q.prompt).",
        )
    tolerance = constant("delta", delta, text)
    confidence = constant("gamma", gamma, text)
    template = constant("task", task, text)
    for name, value in (("delta", tolerance), ("gamma", confidence)):
        if value is None:
            raise ParameterError(
                f"{name} of smart_llm({text}) is NULL; give a number, such as "
                f"delta := 0.1, gamma := 0.95."
            )
    requirement = Requirement(cast(float, tolerance), cast(float, confidence))
    return Call(text, requirement.delta, requirement.gamma, cast("str | None", template))


def _entries(maps: pa.MapArray) -> dict[int, int]:
    """The first map of an array: rows by code."""
    start, stop = maps.offsets[0].as_py(), maps.offsets[1].as_py()
    keys = maps.keys.slice(start, stop - start).to_pylist()
    return dict(zip(keys, maps.items.slice(start, stop - start).to_pylist(), strict=True))


def _taken(row_set: RowSet, name: str, places: pa.Array, kind: pa.DataType) -> pa.Array:
    """One column of the answers at the places; null where the place is null."""
    assert row_set.settled is not None
    column = row_set.settled.columns.get(name)
    if column is None:
        return pa.nulls(len(places), kind)
    taken = pc.take(column, places)
    return taken if taken.type == kind else taken.cast(kind)
