"""Rows of the ledger's tables as values, and the statements that write them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smartsql.gateway import Attempt
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
