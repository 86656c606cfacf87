"""Named steps of a statement at which a process can kill itself: wrappers, not production code."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import smartsql.engine
import smartsql.executor
import smartsql.ledger.claims
import smartsql.ledger.opening
import smartsql.ledger.store
from smartsql.asking.exchange import Exchange
from smartsql.gateway.openai_api import OpenAIBackend
from smartsql.ledger.batches import Batches
from smartsql.ledger.sent import Notes

LEDGER = smartsql.ledger.store.Ledger
STEPS: dict[str, tuple[object, str, str, int]] = {
    # what: owner of the function, its name, before or after it, at which of its calls
    "before the statement is kept": (LEDGER, "statement", "before", 1),
    "before the run is recorded": (LEDGER, "begin_run", "before", 1),
    "after the run is recorded": (LEDGER, "begin_run", "after", 1),
    "before anything is claimed": (LEDGER, "claim", "before", 1),
    "while claims are held and nothing is noted": (LEDGER, "claim", "after", 1),
    "before the first calls are handed over": (OpenAIBackend, "start", "before", 1),
    "when the first call is noted and not sent": (Notes, "mark", "after", 1),
    "when the twentieth call is noted": (Notes, "mark", "after", 20),
    "between the first answer and its write": (Exchange, "_keep", "before", 1),
    "between a later answer and its write": (Exchange, "_keep", "before", 9),
    "in the middle of the first write": (smartsql.ledger.store, "write", "after", 1),
    "in the middle of a later write": (smartsql.ledger.store, "write", "after", 12),
    "between a write and its use": (LEDGER, "record", "after", 5),
    "after the pilot": (Exchange, "fulfil", "after", 1),
    "before the second step": (Exchange, "fulfil", "before", 2),
    "in the middle of the audit": (Exchange, "_settle", "after", 14),
    "after the audit": (smartsql.executor, "deploy", "before", 1),
    "before claims are released": (LEDGER, "release", "before", 1),
    "between the end of claims and that of notes": (Notes, "close", "before", 2),
    "when all is answered": (smartsql.executor, "deploy", "after", 1),
    "between the last write and the report": (LEDGER, "end_run", "before", 1),
    "after the report": (LEDGER, "end_run", "after", 1),
    "before the lost calls are looked for": (LEDGER, "catch_up", "before", 1),
    "while the lost calls are written": (smartsql.ledger.claims, "reap", "after", 1),
    "between the lost calls and the end of their notes": (
        smartsql.ledger.claims,
        "forget",
        "before",
        1,
    ),
}


BATCH_STEPS: dict[str, tuple[object, str, str, int]] = {
    "before the batch is kept": (Batches, "prepare", "before", 1),
    "when the batch is kept and nothing was sent": (Batches, "prepare", "after", 1),
    "when its file is there and that is not kept": (Batches, "sent", "before", 1),
    "when its file is kept and nothing was made of it": (Batches, "sent", "after", 1),
    "when it has begun and that is not kept": (Batches, "opened", "before", 1),
    "when it is kept that it has begun": (Batches, "opened", "after", 1),
    "when it was looked at": (Batches, "seen", "after", 1),
    "when its answers are here and not kept": (Batches, "collect", "before", 1),
    "when its answers are kept and not used": (Batches, "collect", "after", 1),
}
"""Steps of a statement whose bulk goes into a batch."""


@contextmanager
def armed(step: str | None) -> Iterator[None]:
    """A block in which the process kills itself at a step."""
    if step is not None:
        owner, name, when, count = {**STEPS, **BATCH_STEPS}[step]
        setattr(owner, name, deadly(getattr(owner, name), when, count))
    yield


def deadly(function: Callable[..., Any], when: str, count: int) -> Callable[..., Any]:
    """The function; at its n-th call, before or after it, the process is no more."""
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = function(*args, **kwargs)
        if calls == count and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    return wrapped
