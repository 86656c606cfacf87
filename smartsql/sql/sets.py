"""One set of rows: collected chunk by chunk, sealed once, answered once.

Life of a set: `collect` adds rows until the window of the plan has seen them all; the first
`settle` checks what the window counted against what was collected, hands the distinct prompts to
the engine and keeps its answers; from then on the set is read only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smartsql.errors import IncompleteSetError, ParameterError, QueryError
from smartsql.sql.prompts import (
    PromptIndex,
    PromptTable,
    as_bytes,
    hashes,
    one_array,
    readable,
)
from smartsql.sql.protocol import Answers, Call
from smartsql.types import IntArray

KEY_BITS = 32
"""Codes of `collect` are (number of the set) * 2**KEY_BITS + (number of a lone prompt, or 0)."""

DETAIL = ("answer", "model", "source", "confidence", "cost_usd", "error")
"""What an answered set knows about each prompt: the columns that the table form adds."""

Solve = Callable[[Call, pa.Array, IntArray], Answers | None]
"""Answers a complete set; None where there is nothing to say (a preview)."""


@dataclass(frozen=True, slots=True)
class Token:
    """Which rows belong together: those of one call site in one statement.

    Attributes:
        connection: number of the connection, 0 where it is unknown.
        transaction: number of the transaction; a new one for each statement outside `BEGIN`.
        site: texts of the arguments and the number given with `site`.
    """

    connection: int
    transaction: int
    site: tuple[str, int]

    @classmethod
    def of(
        cls,
        connection: pa.ChunkedArray,
        transaction: pa.ChunkedArray,
        text: pa.ChunkedArray,
        site: pa.ChunkedArray,
    ) -> Token:
        """The token of a chunk; each array has one value."""
        return cls(
            connection[0].as_py() or 0,
            transaction[0].as_py(),
            (text[0].as_py(), site[0].as_py() or 0),
        )


@dataclass(frozen=True, slots=True)
class Settled:
    """An answered set.

    Attributes:
        index: place of each prompt.
        columns: answers and what is known about them by name, one entry for each place; empty
            if there is none to give (a preview, only NULLs).
    """

    index: PromptIndex
    columns: dict[str, pa.Array]


@dataclass(eq=False)
class Family:
    """The sets of one execution of a call: one, or one for each group of its rows.

    Attributes:
        call: what all of them ask.
        opened, touched: moments on the barrier's clock.
        begun: the moment at which its statement began.
        stopped: set when its statement is to end.
        members: the sets by the value of their group; None for NULL, and without groups.
    """

    token: Token
    call: Call
    opened: int
    begun: int
    stopped: Event
    touched: int = 0
    members: dict[bytes | None, RowSet] = field(default_factory=dict)
    is_closed: bool = False
    """Whether one of them was to be answered."""

    def is_over(self, group: bytes | None, begun: int) -> bool:
        """Whether rows of a group that come now are of a later execution of the call.

        DuckDB collects and answers one group after the other, so that those of one group come
        after the answers of another one, but never after its own.

        Args:
            begun: the moment at which the statement began that its connection runs.
        """
        member = self.members.get(group)
        if self.call.per is not None and begun != self.begun:
            return True  # a statement that read some groups only left the others behind
        return member is not None and member.is_closed


class RowSet:
    """The rows of one call site, or of one of its groups; thread-safe.

    DuckDB evaluates a function once for a whole vector if all its arguments are constant, and
    may do so while it plans. A chunk of one row therefore says which prompt, but not how many
    rows carry it. Such lone prompts get a number of their own, and the window counts them.
    """

    def __init__(self, number: int, family: Family, call: Call) -> None:
        self.number = number
        self.family = family
        self.token = family.token
        self.call = call
        self.settled: Settled | None = None
        self.failure: BaseException | None = None
        self.n_rows: int | None = None
        """Rows, those without a prompt included, as the window of the plan counted them."""
        self._lock = Lock()
        self._table = PromptTable()
        self._rows = 0
        self._lone: dict[bytes | None, int] = {}

    @property
    def is_closed(self) -> bool:
        """Whether no row may be added any more."""
        return self.settled is not None or self.failure is not None

    def collect(self, prompts: pa.Array, is_chunk: bool = True) -> IntArray | None:
        """Add rows; one code for each, or None if the set was closed meanwhile.

        Args:
            is_chunk: they are all rows that DuckDB gave at once.
        """
        base = self.number << KEY_BITS
        if len(prompts) == 1 and is_chunk:
            value = None if prompts.null_count else as_bytes(prompts)[0].as_py()
            with self._lock:
                if self.is_closed:
                    return None
                return np.array([base + self._lone.setdefault(value, len(self._lone) + 1)])
        values = as_bytes(prompts.drop_null())
        salt = self._table.salt
        keys = hashes(values, salt)
        with self._lock:
            if self.is_closed:
                return None
            self._rows += len(prompts)
            self._table.add(values, keys, salt)
        return np.full(len(prompts), base, np.int64)

    def settle(self, counted: dict[int, int], solve: Solve) -> Settled:
        """Seal and answer; every thread gets the same result, one does the work.

        Args:
            counted: rows that the window of the plan counted, by code of `collect`.
            solve: called once, with distinct prompts and weights; not for sets without prompts.

        Raises:
            IncompleteSetError: `counted` is not what was collected; `solve` was not called.
        """
        if self.settled is not None:
            return self.settled
        self.family.is_closed = True
        with self._lock:
            if self.failure is not None:
                raise self.failure
            if self.settled is None:
                try:
                    self.settled = self._answered(counted, solve)
                except BaseException as failure:
                    # other threads of DuckDB wait for this set: they end as this one did
                    self.failure = failure
                    self._table = PromptTable()
                    raise
            return self.settled

    def _answered(self, counted: dict[int, int], solve: Solve) -> Settled:
        base = self.number << KEY_BITS
        rows = counted.get(base, 0)
        known = {base, *(base + code for code in self._lone.values())}
        if rows != self._rows or not counted.keys() <= known:
            raise incomplete(self.call, sum(counted.values()), self._rows)
        early = set()
        for value, code in self._lone.items():
            weight = counted.get(base + code, 0)
            if not weight:
                early.add(value)
            elif value is not None:
                lone = pa.array([value], pa.large_binary())
                salt = self._table.salt
                self._table.add(lone, hashes(lone, salt), salt, np.array([weight]))
        prompts, weights, index = self._table.finish()
        # A lone prompt that the window did not count was seen while planning: DuckDB tries a
        # column whose statistics say that it holds one value. Then it is the only prompt.
        only = as_bytes(prompts)[0].as_py() if len(prompts) == 1 else None
        if early and not (self._rows and len(prompts) <= 1 and early == {only}):
            raise incomplete(self.call, sum(counted.values()), self._rows + len(self._lone))
        self._table = PromptTable()
        self.n_rows = sum(counted.values())
        texts, weights, places = readable(prompts, weights)
        answers = solve(self.call, texts, weights) if len(prompts) else None
        if answers is None:
            return Settled(index, {})
        columns = {name: one_array(getattr(answers, name)) for name in DETAIL}
        if places is not None:
            columns = {name: column.take(places) for name, column in columns.items()}
        assert all(len(column) == len(prompts) for column in columns.values())
        return Settled(index, columns)

    def collected(self) -> tuple[pa.Array, IntArray, int]:
        """What was collected so far, for a set that nobody sealed and nobody will.

        Returns:
            Distinct prompts, rows for each, and all rows. Prompts that were met alone count once,
            since the window that would have counted them was not read.
        """
        with self._lock:
            for value in self._lone:
                if value is not None:
                    lone = pa.array([value], pa.large_binary())
                    salt = self._table.salt
                    self._table.add(lone, hashes(lone, salt), salt)
            rows = self._rows + len(self._lone)
            prompts, weights, _ = self._table.finish()
            self._table = PromptTable()
        return *readable(prompts, weights)[:2], rows

    def find(self, prompts: pa.Array) -> pa.Array:
        """Place of each prompt among the answers; null for NULL prompts.

        Raises:
            QueryError: a prompt that was never collected.
        """
        assert self.settled is not None
        found = self.settled.index.find(as_bytes(prompts.drop_null()))
        if (found < 0).any():
            raise QueryError(
                f"a prompt of {self.call} was not the same when it was read again: its argument "
                f"changes at every evaluation (random, uuid, nextval?). Compute it first, in "
                f"WITH q AS MATERIALIZED (SELECT ..), and call "
                f"{self.call.function} on the column of q."
            )
        if not prompts.null_count:
            return pa.array(found)
        valid = prompts.is_valid().to_numpy(zero_copy_only=False)
        places = np.zeros(len(prompts), np.int64)
        places[valid] = found
        return pa.array(places, mask=~valid)

    def column(self, name: str, places: pa.Array, kind: pa.DataType) -> pa.Array:
        """One column of the answers at the places; null where the place is null."""
        assert self.settled is not None
        column = self.settled.columns.get(name)
        if column is None:
            return pa.nulls(len(places), kind)
        taken = pc.take(column, places)
        return taken if taken.type == kind else taken.cast(kind)


def entries(maps: pa.MapArray, row: int) -> dict[int, int]:
    """One map of an array: rows by code."""
    start, stop = maps.offsets[row].as_py(), maps.offsets[row + 1].as_py()
    keys = maps.keys.slice(start, stop - start).to_pylist()
    return dict(zip(keys, maps.items.slice(start, stop - start).to_pylist(), strict=True))


def incomplete(call: Call, counted: int, collected: int) -> IncompleteSetError:
    """The error for a window that did not see the rows that were collected."""
    return IncompleteSetError(
        f"{call} was about to be answered for {counted} rows while {collected} rows had been "
        f"collected under the same text. Its set of rows is not known, so it was not answered. "
        f"In a correlated or LATERAL subquery: compute the call in a WITH query over all rows and "
        f"join its result. Where the same call text stands more than once in the statement, or "
        f"in a view used by it: number the calls, {call.function}({call.text}, site := 1), or run "
        f"the "
        f"statement through smartsql.connect(), which numbers them."
    )


def constant(name: str, values: pa.Array, call: str) -> object:
    """The one value of an argument that must be the same in every row.

    Args:
        call: the call in short.

    Raises:
        ParameterError: it varies.
    """
    distinct = values.unique()
    if len(distinct) > 1:
        raise varying(name, [str(value) for value in distinct[:3].to_pylist()], call)
    return distinct[0].as_py()


def varying(name: str, values: list[str], call: str) -> ParameterError:
    """The error for an argument that differs between rows."""
    return ParameterError(
        f"{name} of {call} is {' and '.join(values)} in one call; it must be the same "
        f"for all rows. Write it as a constant, or split the query by {name} with UNION ALL."
    )
