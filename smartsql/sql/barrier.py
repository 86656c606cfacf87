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

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from threading import Event, Lock

import numpy as np
import pyarrow as pa

from smartsql.errors import CancelledError, QueryError
from smartsql.sql.arguments import (
    SEPARATOR,
    by_group,
    call_of,
    rows_of_each,
    shown_group,
    typed_call_of,
)
from smartsql.sql.prompts import one_array
from smartsql.sql.protocol import Call, Engine
from smartsql.sql.sets import DETAIL, KEY_BITS, Family, RowSet, Solve, Token, entries, varying
from smartsql.sql.sightings import Watch
from smartsql.sql.wording import Wording
from smartsql.types import IntArray

_DETAIL_TYPES = (pa.string(), pa.string(), pa.string(), pa.float64(), pa.float64(), pa.string())

MAX_SETS_PER_CONNECTION = 64
"""Closed families of sets kept for one connection within one transaction; the oldest go first."""


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
        self._families: dict[int, Family] = {}
        self._open: dict[Token, Family] = {}
        self._numbers = count(1)
        self._clock = count(1)
        self._begun: dict[int, int] = {}
        self._running: set[int] = set()
        self._halted: set[int] = set()
        self._failures: dict[int, BaseException] = {}
        self._watches: dict[int | None, Watch] = {}
        self._wordings: dict[int, Wording] = {}

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
        token = Token.of(connection, transaction, text, site)
        with self._reporting(token.connection):
            argument = token.site[0].split(SEPARATOR)[0]
            shown = self.wording(token.connection).shown
            call = call_of(argument, shown, one_array(delta), one_array(gamma), one_array(task))
            prompts = one_array(prompt)
            while (codes := self._set_for(token, call).collect(prompts)) is None:
                pass  # its set was closed meanwhile: into a new one
            return pa.array(codes)

    def collect_more(  # one parameter for each SQL argument
        self,
        prompt: pa.ChunkedArray,
        delta: pa.ChunkedArray,
        gamma: pa.ChunkedArray,
        task: pa.ChunkedArray,
        transaction: pa.ChunkedArray,
        text: pa.ChunkedArray,
        site: pa.ChunkedArray,
        connection: pa.ChunkedArray,
        subject: pa.ChunkedArray,
        instruction: pa.ChunkedArray,
        per: pa.ChunkedArray,
    ) -> pa.Array:
        """`__smart_collect_more`: the same for answers with a type, and for rows in groups."""
        if not len(prompt):
            return pa.array([], pa.int64())
        token = Token.of(connection, transaction, text, site)
        with self._reporting(token.connection):
            arguments = (one_array(some) for some in (delta, gamma, task, subject, instruction))
            shown = self.wording(token.connection).shown
            call = typed_call_of(token.site[0].split(SEPARATOR), shown, *arguments)
            prompts = one_array(prompt)
            if call.per is None:
                groups: list[tuple[bytes | None, IntArray | None]] = [(None, None)]
            else:
                groups = list(by_group(one_array(per)))
            codes = np.empty(len(prompts), np.int64)
            for group, rows in groups:
                some = prompts if rows is None or len(groups) == 1 else prompts.take(pa.array(rows))
                whole = len(some) == len(prompts)
                while (found := self._set_for(token, call, group).collect(some, whole)) is None:
                    pass
                codes[slice(None) if whole else rows] = found
            return pa.array(codes)

    def seal(self, counted: pa.ChunkedArray) -> pa.Array:
        """`__smart_seal`: answer the set when the window has counted it; its number per row."""
        if not len(counted):
            return pa.array([], pa.int64())
        maps = one_array(counted)
        starts = maps.offsets.to_numpy()[:-1]
        numbers = maps.keys.to_numpy()[starts] >> KEY_BITS
        for number, row in zip(*np.unique(numbers, return_index=True), strict=True):
            row_set = self._get(int(number))
            with self._reporting(row_set.token.connection):
                if row_set.settled is None:
                    row_set.settle(entries(maps, int(row)), self._solver(row_set))
        return pa.array(numbers)

    def answer(self, prompt: pa.ChunkedArray, number: pa.ChunkedArray) -> pa.Array:
        """`__smart_answer`: the answer of each prompt."""
        if not len(prompt):
            return pa.array([], pa.string())
        return self._taken(prompt, number, ("answer",), (pa.string(),))[0]

    def detail(self, prompt: pa.ChunkedArray, number: pa.ChunkedArray) -> pa.Array:
        """`__smart_detail`: answer, model, source, confidence, cost and error of each prompt."""
        if not len(prompt):
            return pa.StructArray.from_arrays([pa.array([], t) for t in _DETAIL_TYPES], DETAIL)
        columns = self._taken(prompt, number, DETAIL, _DETAIL_TYPES)
        return pa.StructArray.from_arrays(columns, DETAIL)

    # -- what a session does ---------------------------------------------------------------

    @contextmanager
    def statement(self, connection: int) -> Iterator[None]:
        """Within this block a connection runs one statement; then earlier sets can go.

        Everything that ran before on the connection is over, or the statement is refused.
        """
        begun = next(self._clock)
        before = self._begun.get(connection, 0)
        self._begun[connection] = begun
        self._running.add(connection)
        try:
            yield
        except BaseException:
            # however it ended, Ctrl-C too: it may never have begun, because another thread's
            # statement still runs, and the sets of that one must stay
            self._begun[connection] = before
            raise
        finally:
            self._running.discard(connection)
            self._halted.discard(connection)
        self.release(connection, before=begun)

    def interrupt(self, connection: int) -> None:
        """End the calls of a connection: those the engine runs and those it is yet to be given."""
        with self._lock:
            if connection in self._running:
                self._halted.add(connection)
            for family in self._families.values():
                if family.token.connection == connection:
                    family.stopped.set()
        self.engine.cancel(connection or None)

    @contextmanager
    def interrupted(self, connection: int) -> Iterator[None]:
        """Within this block no call of a connection is asked, and none goes on."""
        self._running.add(connection)
        self.interrupt(connection)
        try:
            yield
        finally:
            self._running.discard(connection)
            self._halted.discard(connection)

    def wording(self, connection: int) -> Wording:
        """How the calls of a connection were written, where a session told."""
        return self._wordings.setdefault(connection, Wording())

    def leave(self, connection: int) -> None:
        """Forget a connection that is closed."""
        self.release(connection)
        self._wordings.pop(connection, None)

    def release(self, connection: int, before: int | None = None) -> None:
        """Forget the sets of a connection: its earlier statements are over.

        Args:
            before: keep sets that were opened after this moment.
        """
        with self._lock:
            self._forget(
                family
                for family in self._families.values()
                if family.token.connection == connection
                and (before is None or family.opened < before)
            )

    def take_failure(self, connection: int) -> BaseException | None:
        """The last error raised inside a statement of this connection, once."""
        with self._lock:
            return self._failures.pop(connection, None)

    @contextmanager
    def previewing(self, connection: int, *, everyone: bool = False) -> Iterator[Watch]:
        """Within this block the sets of a connection are only noted, and answered with NULL.

        Args:
            everyone: those of all connections of this instance, so that nothing at all can reach
                the engine.
        """
        watch, key = Watch(), None if everyone else connection
        before = self._watches.get(key)
        self._watches[key] = watch
        try:
            yield watch
        finally:
            self._watches.pop(key)
            if before is not None:
                self._watches[key] = before
            self.release(connection)

    def _watch(self, connection: int) -> Watch | None:
        """Who notes the sets of a connection, None where they are answered."""
        return self._watches.get(connection) or self._watches.get(None)

    @property
    def n_sets(self) -> int:
        """Sets in memory."""
        return len(self._sets)

    # -- inside ----------------------------------------------------------------------------

    def _set_for(self, token: Token, call: Call, group: bytes | None = None) -> RowSet:
        """The set that is being collected under a token; a new one where the last is closed."""
        with self._lock:
            family = self._open.get(token)
            begun = self._begun.get(token.connection, 0)
            if family is None or family.is_over(group, begun):
                family = self._new_family(token, call, begun)
            row_set = family.members.get(group)
            if row_set is None:
                number = next(self._numbers)
                mine = replace(family.call, group=shown_group(group))
                row_set = RowSet(number, family, mine)
                self._sets[number] = family.members[group] = row_set
                if watch := self._watch(token.connection):
                    watch.row_sets.append(row_set)
        if family.call != call:
            for name in ("delta", "gamma", "task", "options"):
                values = [str(getattr(c, name)) for c in (family.call, call)]
                if values[0] != values[1]:
                    raise varying(name, values, call.title)
        return row_set

    def _new_family(self, token: Token, call: Call, begun: int) -> Family:
        """A family for the rows that come now under a token; holds the lock."""
        stopped = Event()
        if token.connection in self._halted:
            stopped.set()
        scoped = replace(
            call,
            statement=self._statement_of(token, begun),
            connection=token.connection or None,
            site=token.site,
            stopped=stopped,
        )
        self._make_room(token)
        opened = next(self._clock)
        family = Family(token, scoped, opened, begun, stopped, touched=opened)
        self._families[opened] = self._open[token] = family
        return family

    def _statement_of(self, token: Token, begun: int) -> int:
        """Number of the statement that a new set belongs to; holds the lock.

        A session says when a statement begins, which tells those within one `BEGIN` apart; a new
        transaction tells executions apart that no session sees (relations, bare connections).
        """
        for family in self._families.values():
            same = family.token.connection == token.connection and family.begun == begun
            if same and family.token.transaction == token.transaction:
                assert family.call.statement is not None
                return family.call.statement
        return next(_statements)

    def _make_room(self, token: Token) -> None:
        """Forget what can no longer be asked for; holds the lock.

        A connection runs one statement at a time, so a new transaction ends the older ones of
        the same connection. Connections that were never introduced all have number 0; of them,
        and within one explicit transaction, the oldest closed sets go when there are many.
        """
        mine = [f for f in self._families.values() if f.token.connection == token.connection]
        if token.connection:
            ended = [f for f in mine if f.token.transaction != token.transaction]
            self._forget(iter(ended))
            mine = [f for f in mine if f.token.transaction == token.transaction]
        spare = len(mine) - MAX_SETS_PER_CONNECTION + 1
        if spare > 0:
            self._forget(iter(sorted(mine, key=lambda f: (not f.is_closed, f.touched))[:spare]))

    def _forget(self, families: Iterator[Family]) -> None:
        for family in list(families):
            self._families.pop(family.opened, None)
            for row_set in family.members.values():
                self._sets.pop(row_set.number, None)
            if self._open.get(family.token) is family:
                del self._open[family.token]

    def _get(self, number: int) -> RowSet:
        row_set = self._sets.get(number)
        if row_set is None:
            raise QueryError(
                "the answers of this statement were already released because other statements "
                "ran on its connection; read the result of a statement before the next one."
            )
        row_set.family.touched = next(self._clock)
        return row_set

    def _taken(
        self,
        prompt: pa.ChunkedArray,
        number: pa.ChunkedArray,
        names: Sequence[str],
        kinds: Sequence[pa.DataType],
    ) -> list[pa.Array]:
        """Columns of the answers to a chunk's prompts, each from the set of its row."""
        prompts, numbers = one_array(prompt), one_array(number).to_numpy()
        if (numbers == numbers[0]).all():
            return self._taken_from(int(numbers[0]), prompts, names, kinds)
        groups = rows_of_each(numbers)
        parts = [
            self._taken_from(int(numbers[rows[0]]), prompts.take(pa.array(rows)), names, kinds)
            for rows in groups
        ]
        back = pa.array(np.argsort(np.concatenate(groups), kind="stable"))
        return [pa.concat_arrays(column).take(back) for column in zip(*parts, strict=True)]

    def _taken_from(
        self, number: int, prompts: pa.Array, names: Sequence[str], kinds: Sequence[pa.DataType]
    ) -> list[pa.Array]:
        row_set = self._get(number)
        with self._reporting(row_set.token.connection):
            places = row_set.find(prompts)
        return [row_set.column(n, places, kind) for n, kind in zip(names, kinds, strict=True)]

    def _solver(self, row_set: RowSet) -> Solve:
        watch = self._watch(row_set.token.connection)
        if watch is not None:
            return watch.noting(row_set.number)
        if row_set.family.stopped.is_set():
            raise CancelledError("the statement was interrupted before this call was asked.")
        return self.engine.answer

    @contextmanager
    def _reporting(self, connection: int) -> Iterator[None]:
        """Keep an error aside for the session: DuckDB passes on its message only."""
        try:
            yield
        except BaseException as failure:
            # the edge of DuckDB: it would make a message of anything, of Ctrl-C too
            if not isinstance(failure, Exception):  # Ctrl-C: models must not work on
                self.interrupt(connection)
            with self._lock:
                # an interrupt is what happened; the cancelled engine's error only follows
                if isinstance(self._failures.get(connection), (Exception, type(None))):
                    self._failures[connection] = failure
            raise
