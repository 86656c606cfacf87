"""What a preview sees of the sets of a statement while nothing is asked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from smartsql.sql.arguments import SEPARATOR
from smartsql.sql.protocol import Call
from smartsql.sql.sets import RowSet, Solve
from smartsql.types import IntArray

_NO_GROUP = "NULL"
"""The text of `per` in a call without groups."""


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """One set of a call, as far as a preview saw it.

    Attributes:
        site: text of the call's arguments and its number.
        prompts: distinct, non-null; string array of shape (n,).
        weights: rows of each; shape (n,).
        rows: all rows, those whose prompt was NULL included.
        sealed: the plan asked for answers; else it only might have.
    """

    site: tuple[str, int]
    call: Call
    prompts: pa.Array
    weights: IntArray
    rows: int
    sealed: bool

    def same_rows(self, other: Sighting) -> bool:
        """Whether both are about the same prompts, as often."""
        return (
            self.rows == other.rows
            and int(self.weights.sum()) == int(other.weights.sum())
            and self.prompts.equals(other.prompts)
        )

    def at_most(self, *, unknown: bool) -> Sighting:
        """The same as an upper bound.

        Args:
            unknown: the prompts themselves depend on answers: each row may have one of its own.
        """
        bound = replace(self, call=replace(self.call, at_most=True))
        if not unknown:
            return bound
        guesses = pa.array([f"an answer of a usual length {i}" for i in range(self.rows)])
        return replace(bound, prompts=guesses, weights=np.ones(self.rows, dtype=np.int64))


@dataclass
class Watch:
    """The sets of statements that run while their calls are not answered.

    Attributes:
        row_sets: in the order in which they were opened.
    """

    row_sets: list[RowSet] = field(default_factory=list)
    _sealed: dict[int, tuple[pa.Array, IntArray]] = field(default_factory=dict)

    def noting(self, number: int) -> Solve:
        """Notes the prompts of a set and answers nothing."""

        def note(call: Call, prompts: pa.Array, weights: IntArray) -> None:
            self._sealed[number] = prompts, weights

        return note

    def sightings(self) -> list[Sighting]:
        """What was seen; to be called once, when the statement has run."""
        sets = [row_set for row_set in self.row_sets if not self._is_idle(row_set)]
        return [seen for row_set in sets if (seen := self._sighting(row_set)).rows]

    def _is_idle(self, row_set: RowSet) -> bool:
        """Whether a set belongs to the half of its call's macro that DuckDB drops.

        One half is for all rows, the other for groups of `per`. Both meet a constant prompt while
        the statement is planned.
        """
        groups_nothing = row_set.token.site[0].split(SEPARATOR)[6:] == [_NO_GROUP]
        if groups_nothing or row_set.call.per is not None or row_set.n_rows is not None:
            return groups_nothing
        mine = row_set.token.site
        return any(
            other.call.per is not None
            and other.call.kind == row_set.call.kind
            and other.token.site[1] == mine[1]
            and other.token.site[0].split(SEPARATOR)[6:] != [_NO_GROUP]
            and other.token.site[0].split(SEPARATOR)[:4] == mine[0].split(SEPARATOR)[:4]
            for other in self.row_sets
        )

    def _sighting(self, row_set: RowSet) -> Sighting:
        sealed = row_set.n_rows is not None
        if sealed:
            nothing = pa.array([], pa.large_string()), np.zeros(0, dtype=np.int64)
            prompts, weights = self._sealed.get(row_set.number, nothing)
            rows = row_set.n_rows or 0
        else:
            prompts, weights, rows = row_set.collected()
        return Sighting(row_set.token.site, row_set.call, prompts, weights, rows, sealed)
