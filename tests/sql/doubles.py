"""An engine that answers with a pure function of the prompt and writes down what it was asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa

from smartsql.sql.protocol import Call
from smartsql.tasks import Task
from smartsql.types import IntArray


def tone(prompt: str) -> str:
    """What the double says; in SQL: substr(md5(prompt), 1, 1)."""
    return hashlib.md5(prompt.encode()).hexdigest()[0]


@dataclass(frozen=True, slots=True)
class Answered:
    answer: pa.Array
    model: pa.Array
    source: pa.Array
    confidence: pa.Array
    cost_usd: pa.Array
    error: pa.Array


@dataclass
class RecordingEngine:
    """Doubles the engine at its edge; DuckDB is real."""

    say: Callable[[str], str | None] = tone
    asked: list[tuple[Call, dict[str, int]]] = field(default_factory=list)
    previewed: list[tuple[Call, dict[str, int]]] = field(default_factory=list)
    cancelled: list[int | None] = field(default_factory=list)
    defined: list[Task] = field(default_factory=list)

    def answer(self, call: Call, prompts: pa.Array, weights: IntArray) -> Answered:
        texts = prompts.to_pylist()
        self.asked.append((call, dict(zip(texts, weights.tolist(), strict=True))))
        answers = [self.say(text) for text in texts]
        return Answered(
            pa.array(answers, pa.string()),
            pa.array(["double"] * len(texts)),
            pa.array(["reference"] * len(texts)),
            pa.array([0.5] * len(texts)),
            pa.array([0.01] * len(texts)),
            pa.array([None if a is not None else "no answer" for a in answers], pa.string()),
        )

    def preview(self, call: Call, prompts: pa.Array, weights: IntArray) -> object:
        weighed = dict(zip(prompts.to_pylist(), weights.tolist(), strict=True))
        self.previewed.append((call, weighed))
        return ("preview", call.text, len(weighed), int(weights.sum()))

    def cancel(self, connection: int | None = None) -> None:
        self.cancelled.append(connection)

    def schema(self, table: str) -> pa.Schema:
        columns: pa.Table = getattr(self, table)()
        return columns.schema

    def reports(self) -> pa.Table:
        return pa.table(
            {
                "call": pa.array([str(call) for call, _ in self.asked], pa.string()),
                "rows": pa.array([sum(w.values()) for _, w in self.asked], pa.int64()),
            }
        )

    def models(self) -> pa.Table:
        return pa.table({"name": ["double"], "role": ["reference"]})

    def tasks(self) -> pa.Table:
        return pa.table({"name": pa.array([task.name for task in self.defined], pa.string())})

    def define_task(self, task: Task, *, replace: bool) -> int:
        self.defined.append(task)
        return len(self.defined)

    def rehearse_task(self, name: str, task: Task | None, *, lenient: bool) -> None:
        raise NotImplementedError

    def drop_task(self, name: str, *, missing_ok: bool) -> bool:
        self.defined = [task for task in self.defined if task.name != name]
        return True

    def ledger(self) -> pa.Table:
        return pa.table(
            {"model": pa.array([], pa.string()), "cost_usd": pa.array([], pa.float64())}
        )

    @property
    def prompts(self) -> list[str]:
        """All prompts asked so far, sorted, once for each set they were in."""
        return sorted(prompt for _, weights in self.asked for prompt in weights)

    @property
    def rows(self) -> list[int]:
        """Rows of each set, in the order of the sets."""
        return [sum(weights.values()) for _, weights in self.asked]
