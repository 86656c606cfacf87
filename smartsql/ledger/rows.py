"""Rows of the ledger's tables as values, and the statements that write them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from smartsql.gateway import DELIVERED, Attempt
from smartsql.ledger import spending
from smartsql.profile import Features
from smartsql.types import IntArray

INSERT_ANSWER = "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
INSERT_FAILURE = (
    "INSERT INTO failures (identity, prompt, run, at, status, final, prompt_tokens, "
    "completion_tokens, cost_usd, seconds, served_by, error) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer that was paid for earlier; `status` other than "ok" means it has no text."""

    status: str
    text: str | None
    confidence: float | None
    cost_usd: float
    seconds: float
    scores: Mapping[str, float] | None = None
    figures: bytes | None = None


class Batch(NamedTuple):
    """Attempts that are written in one transaction.

    Attributes:
        answers, failures: rows of these tables.
        usd: what the attempts cost.
        lease: under which money was set aside for them, if any was.
    """

    at: float
    answers: list[tuple[object, ...]]
    failures: list[tuple[object, ...]]
    usd: float
    lease: str | None

    @property
    def served(self) -> set[tuple[Any, Any]]:
        """The identities of the answers, each with the model ids that the endpoint gave."""
        return {(answer[0], answer[11]) for answer in self.answers}


@dataclass(frozen=True, slots=True)
class Statement:
    """What a call remembers, so that it takes the same decisions again.

    Attributes:
        seed: of the random order.
        prompts: canonical digests, 16 bytes each.
        weights: rows of each prompt.
        expected_costs: of one call of each model, reference first, as estimated the first time.
        features: figures about the texts that decisions may rest on, if any.
    """

    seed: int
    prompts: bytes
    weights: IntArray
    expected_costs: tuple[float, ...]
    features: Features | None = None


def batch_of(
    run: int,
    identity: int,
    attempts: Sequence[tuple[bytes, Attempt]],
    at: float,
    lease: str | None,
) -> Batch:
    """Attempts as rows; delivered ones are answers."""
    delivered: Sequence[tuple[bytes, Attempt]] = attempts
    others: Sequence[tuple[bytes, Attempt]] = ()
    if any(a.status != "ok" or not a.final for _, a in attempts):
        delivered = [(p, a) for p, a in attempts if a.final and a.status in DELIVERED]
        others = [(p, a) for p, a in attempts if not (a.final and a.status in DELIVERED)]
    answers: list[tuple[object, ...]] = [
        (identity, prompt, run, at, a.status, a.text, a.confidence, a.prompt_tokens,
         a.completion_tokens, a.cost_usd, a.seconds, a.served_by, scores_text(a),
         a.figures)
        for prompt, a in delivered
    ]  # fmt: skip
    failures: list[tuple[object, ...]] = [
        (identity, prompt, run, at, a.status, a.final, a.prompt_tokens,
         a.completion_tokens, a.cost_usd, a.seconds, a.served_by, a.error)
        for prompt, a in others
    ]  # fmt: skip
    return Batch(at, answers, failures, sum([a.cost_usd for _, a in attempts]), lease)


def write(db: sqlite3.Connection, batch: Batch) -> None:
    """Write a batch within a transaction; an "ok" answer is never replaced."""
    spending.count(db, batch.at, batch.usd, batch.lease)
    db.executemany(INSERT_FAILURE, batch.failures)
    db.execute("SAVEPOINT answers")
    try:
        db.executemany(INSERT_ANSWER, batch.answers)
    except sqlite3.IntegrityError:  # some prompt was answered meanwhile: one by one
        db.execute("ROLLBACK TO answers")
        for answer in batch.answers:
            keep_better(db, answer)


def is_written(db: sqlite3.Connection, batch: Batch) -> bool:
    """Whether a batch is in the file already; it was written whole or not at all."""
    first = (batch.answers or batch.failures)[0]
    return bool(
        db.execute(
            "SELECT 1 FROM attempts WHERE identity = ? AND prompt = ? AND run = ? AND at = ?",
            first[:4],
        ).fetchone()
    )


def scores_text(attempt: Attempt) -> str | None:
    """The probabilities of labels as they are kept."""
    return None if attempt.scores is None else json.dumps(attempt.scores, ensure_ascii=False)


def stored_of(row: tuple[Any, ...]) -> Stored:
    """An answer from its columns: status, text, confidence, USD, seconds, scores, figures."""
    scores = None if row[5] is None else json.loads(row[5])
    return Stored(row[0], row[1], row[2], row[3], row[4], scores, row[6])


def grouped(prompts: Sequence[bytes]) -> Iterator[tuple[Sequence[bytes], str]]:
    """Prompts in groups that fit one statement, each with its placeholders."""
    for start in range(0, len(prompts), 500):
        some = prompts[start : start + 500]
        yield some, ",".join("?" * len(some))


def keep_better(db: sqlite3.Connection, answer: tuple[object, ...]) -> None:
    """Keep the better of two answers; the other one stays as an attempt that was paid."""
    found = db.execute(
        "SELECT * FROM answers WHERE identity = ? AND prompt = ?", answer[:2]
    ).fetchone()
    kept, spare = (found, answer) if found and found[4] == "ok" else (answer, found)
    db.execute(INSERT_ANSWER.replace("INSERT", "INSERT OR REPLACE", 1), kept)
    if spare:
        _, _, run, at, status, _, _, *tokens_and_cost, served_by, _, _ = spare
        db.execute(
            INSERT_FAILURE,
            (*spare[:2], run, at, status, True, *tokens_and_cost, served_by, "superseded"),
        )
