"""What the SQL layer needs from the engine behind it: calls in, answers out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from smartsql.types import IntArray


@dataclass(frozen=True, slots=True)
class Call:
    """One call site in one statement.

    Attributes:
        text: SQL text of the prompt argument, for reports.
        delta: tolerated share of disagreeing rows.
        gamma: probability with which the tolerance holds.
        task: name of a prompt template, or None.
        statement: a number that all calls of one executed statement share, and no other
            statement of the process has; None if unknown.
        connection: number of the connection it runs on; None if unknown.

    Calls are equal if they ask for the same; who asks is no part of that.
    """

    text: str
    delta: float
    gamma: float
    task: str | None
    statement: int | None = field(default=None, compare=False)
    connection: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        """The call as one would write it."""
        task = "" if self.task is None else f", task := '{self.task}'"
        return f"smart_llm({self.text}, {self.delta:g}, {self.gamma:g}{task})"


class Answers(Protocol):
    """An answered set: one entry for each distinct prompt, in the order they were handed over."""

    @property
    def answer(self) -> pa.Array:
        """Answers; string, null where there is none."""
        ...

    @property
    def model(self) -> pa.Array:
        """Model that gave each answer; string."""
        ...

    @property
    def source(self) -> pa.Array:
        """ "reference", "assigned", "cached" or "error"; string."""
        ...

    @property
    def confidence(self) -> pa.Array:
        """Confidence of each answer, in [0, 1]; float64, null where unknown."""
        ...

    @property
    def cost_usd(self) -> pa.Array:
        """What each answer cost; float64."""
        ...

    @property
    def error(self) -> pa.Array:
        """Why there is no answer; string, null where there is one."""
        ...


class Engine(Protocol):
    """Answers whole sets of prompts and keeps the books."""

    def answer(self, call: Call, prompts: pa.Array, weights: IntArray) -> Answers:
        """Answer a complete set; blocks until done.

        Args:
            call: the call site.
            prompts: distinct prompts, none of them null; string or large_string.
            weights: rows that carry each prompt, at least 1.

        Raises:
            SmartSQLError: the set cannot be answered.
        """
        ...

    def preview(self, call: Call, prompts: pa.Array, weights: IntArray) -> object:
        """What `answer` would spend, without asking a model; arguments as there."""
        ...

    def cancel(self, connection: int | None = None) -> None:
        """Have running `answer`s raise as soon as they can. Called from any thread.

        Args:
            connection: only those for calls of this connection; None for all.
        """
        ...

    def reports(self) -> pa.Table:
        """One row for each call answered so far."""
        ...

    def models(self) -> pa.Table:
        """One row for each configured model."""
        ...

    def ledger(self) -> pa.Table:
        """One row for each attempt that was paid."""
        ...
