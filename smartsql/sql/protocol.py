"""What the SQL layer needs from the engine behind it: calls in, answers out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from threading import Event
from typing import Protocol

import pyarrow as pa

from smartsql.tasks import Task
from smartsql.types import IntArray

LONGEST_SUBJECT = 60
"""Characters of what a call asks in its title."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call site in one statement.

    Attributes:
        text: SQL text of the prompt argument, for reports.
        delta: tolerated share of disagreeing rows.
        gamma: probability with which the tolerance holds.
        task: name of a prompt template, or None.
        kind: of its answers: "llm" for texts, "filter", "classify", "extract".
        options: what it asks beside the prompt, in one spelling; empty for "llm".
        per: SQL text of what groups its rows, each of which has the promise of its own; None
            where all rows are one set.
        group: the value of `per` that all its rows have; None for NULL, and without groups.
        statement: a number that all calls of one executed statement share, and no other
            statement of the process has; None if unknown.
        connection: number of the connection it runs on; None if unknown.
        site: text and number of the call in its statement, which tell it from others; None if
            unknown.
        at_most: in a preview, its rows are an upper bound, since they depend on answers.
        stopped: set when its statement is to end, be it before the call has come to the engine;
            None if nobody would.

    Calls are equal if they ask for the same; who asks is no part of that.
    """

    text: str
    delta: float
    gamma: float
    task: str | None
    kind: str = "llm"
    options: str = ""
    per: str | None = None
    group: str | None = None
    statement: int | None = field(default=None, compare=False)
    connection: int | None = field(default=None, compare=False)
    site: tuple[str, int] | None = field(default=None, compare=False)
    at_most: bool = field(default=False, compare=False)
    stopped: Event | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        """The call as one would write it."""
        task = "" if self.task is None else f", task := '{self.task}'"
        per = "" if self.per is None else f", per := {self.per}"
        return f"{self.function}({self.text}, {self.delta:g}, {self.gamma:g}{task}{per})"

    @property
    def function(self) -> str:
        """The name of its function."""
        return f"smart_{self.kind}"

    @property
    def title(self) -> str:
        """The call in short, for reports: function, prompt, what it asks, and the group."""
        short = f"{self.function}({self.text}{self._subject()})"
        if self.per is None:
            return short
        value = "IS NULL" if self.group is None else f"= {self.group!r}"
        return f"{short} per {self.per} {value}"

    def _subject(self) -> str:
        """Question, labels or structure as an argument, cut where it is long."""
        said = json.loads(self.options) if self.options else {}
        for name in ("question", "labels", "structure"):
            if name in said:
                text = repr(said[name])
                return (
                    f", {text if len(text) <= LONGEST_SUBJECT else text[:LONGEST_SUBJECT] + '..'}"
                )
        return ""


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

    def schema(self, table: str) -> pa.Schema:
        """Columns of "reports", "models", "ledger" or "tasks", without reading what is in it."""
        ...

    def reports(self) -> pa.Table:
        """One row for each call answered so far."""
        ...

    def models(self) -> pa.Table:
        """One row for each configured model."""
        ...

    def tasks(self) -> pa.Table:
        """One row for each task."""
        ...

    def define_task(self, task: Task, *, replace: bool) -> int:
        """Keep a task that a statement defines; its version."""
        ...

    def drop_task(self, name: str, *, missing_ok: bool) -> bool:
        """Drop a task that a statement defined; whether there was one."""
        ...

    def rehearse_task(self, name: str, task: Task | None, *, lenient: bool) -> None:
        """Define (or drop, None) a task for this engine only, as in `define_task`, `drop_task`."""
        ...

    def ledger(self) -> pa.Table:
        """One row for each attempt that was paid."""
        ...
