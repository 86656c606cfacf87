"""Tasks in SQL: statements of ours that DuckDB never sees.

CREATE [OR REPLACE] SMART TASK name AS PROMPT '..{input}..' [LABELS ('a', 'b')] [EQUAL 'text']
DROP SMART TASK [IF EXISTS] name
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol, cast, get_args

from smartsql.errors import QueryError
from smartsql.sql.normalise.text.parameters import is_blank
from smartsql.sql.normalise.text.words import Words
from smartsql.tasks import Equality, Task

_MENTION = re.compile(r"\bSMART\s+TASK\b", re.IGNORECASE)
_EQUAL = get_args(Equality)
_FORM = (
    "write CREATE [OR REPLACE] SMART TASK name AS PROMPT 'Is this good or bad? {input}' "
    "[LABELS ('good', 'bad')] [EQUAL 'text'], or DROP SMART TASK [IF EXISTS] name"
)


@dataclass(frozen=True, slots=True)
class TaskStatement:
    """A statement about a task.

    Attributes:
        task: what it defines; None if it drops.
        lenient: OR REPLACE, or IF EXISTS.
    """

    name: str
    task: Task | None
    lenient: bool


class TaskKeeper(Protocol):
    """Who keeps tasks."""

    def define_task(self, task: Task, *, replace: bool) -> int:
        """Keep a task; its version."""
        ...

    def drop_task(self, name: str, *, missing_ok: bool) -> bool:
        """Drop a task; whether there was one."""
        ...


def carried_out(about: TaskStatement, keeper: TaskKeeper) -> tuple[str, list[str]]:
    """Define or drop a task; a query for its name and version (0 for a dropped one)."""
    version = 0
    if about.task is None:
        keeper.drop_task(about.name, missing_ok=about.lenient)
    else:
        version = keeper.define_task(about.task, replace=about.lenient)
    return "SELECT ? AS task, ?::BIGINT AS version", [about.name, str(version)]


def mentions_smart_task(text: str) -> bool:
    """Whether a statement about tasks may stand in a text; never wrongly False."""
    return _MENTION.search(text) is not None


def task_statement(text: str) -> TaskStatement | None:
    """What a statement says of a task; None for statements that are DuckDB's.

    Raises:
        QueryError: it is about a task, but cannot be read.
        ConfigError: a prompt without `{input}`, or labels that cannot be told apart.
    """
    if not mentions_smart_task(text) or is_blank(text):
        return None
    words = Words(text)
    if words.are(0, "DROP", "SMART", "TASK"):
        lenient = words.are(3, "IF", "EXISTS")
        at = 5 if lenient else 3
        if at + 1 != len(words) or words.is_string(at):
            raise _unreadable(words, at)
        return TaskStatement(words.tokens[at].text, None, lenient)
    lenient = words.are(1, "OR", "REPLACE")
    at = 3 if lenient else 1
    if not (words.is_any(0, "CREATE") and words.are(at, "SMART", "TASK")):
        return None
    at += 2
    if not words.are(at + 1, "AS", "PROMPT") or not words.is_string(at + 3):
        raise _unreadable(words, at)
    name, prompt = words.tokens[at].text, words.tokens[at + 3].text
    labels, equal = _options(words, at + 4)
    return TaskStatement(name, Task(name, prompt, labels, equal), lenient)


def _options(words: Words, at: int) -> tuple[tuple[str, ...], Equality]:
    """LABELS and EQUAL, each at most once."""
    labels: tuple[str, ...] = ()
    equal = "auto"
    if words.are(at, "LABELS", "("):
        items = words.listed(at + 2, words.closing(at + 1))
        for first, last in items:
            if first != last or not words.is_string(first):
                raise _unreadable(words, first)
        labels = tuple(words.tokens[first].text for first, _ in items)
        at = words.closing(at + 1) + 1
    if words.is_any(at, "EQUAL") and words.is_string(at + 1):
        equal = words.tokens[at + 1].text
        at += 2
    if at < len(words):
        raise _unreadable(words, at)
    if equal not in _EQUAL:
        raise QueryError(f"EQUAL is {equal!r}; it is one of {', '.join(_EQUAL)}.")
    return labels, cast("Equality", equal)


def _unreadable(words: Words, at: int) -> QueryError:
    here = words.before(at)[-40:] + " >> " + words.text[len(words.before(at)) :][:40]
    return QueryError(
        f"cannot read this statement about a smart task at {here.strip()!r}: {_FORM}."
    )
