"""Tasks by name: those of the configuration, and those that were defined with SQL."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import pyarrow as pa

from smartsql.errors import ConfigError, QueryError
from smartsql.ledger import Ledger
from smartsql.ledger.tasks import TaskTable
from smartsql.tasks import Task

if TYPE_CHECKING:
    from smartsql.config import Settings

TASKS = pa.schema(
    [
        ("name", pa.string()),
        ("version", pa.int64()),
        ("defined_in", pa.string()),
        ("prompt", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("equal", pa.string()),
        ("defined_at", pa.timestamp("us", "UTC")),
    ]
)
"""`defined_in` is "configuration" or "SQL"; version and time are those of SQL."""


class DefinedTasks:
    """All tasks of an engine. A name of the configuration cannot be defined with SQL."""

    def __init__(self, settings: Settings, store: Ledger) -> None:
        self._settings = settings
        self._stored = TaskTable(store)
        self._rehearsed: dict[str, Task | None] = {}

    def task(self, name: str | None) -> Task:
        """The task of that name, the default task, or prompts sent as they stand.

        Raises:
            ConfigError: no task of that name.
        """
        name = name or self._settings.default_task
        if name is not None and name not in self._settings.tasks:
            rehearsed = self._rehearsed.get(name)
            if rehearsed is not None:
                return rehearsed
            found = None if name in self._rehearsed else self._stored.find(name)
            if found is not None:
                fields = found.fields
                return Task(name, fields["prompt"], tuple(fields["labels"]), fields["equal"])
        return self._settings.task(name)

    def define(self, task: Task, *, replace: bool) -> int:
        """Keep a task; its version.

        Raises:
            ConfigError: the configuration has a task of this name.
            QueryError: there is one already, and it may not be replaced.
        """
        name = str(task.name)
        self._refuse_configured(name)
        known = asdict(task)
        fields = {"prompt": task.template, "labels": list(task.labels), "equal": known["equal"]}
        version = self._stored.write(name, fields, replace=replace)
        if not version:
            raise _exists(name)
        return version

    def drop(self, name: str, *, missing_ok: bool) -> bool:
        """Drop a task; whether there was one.

        Raises:
            ConfigError: the configuration has it.
            QueryError: there is none.
        """
        self._refuse_configured(name)
        dropped = bool(self._stored.write(name, None))
        if not dropped and not missing_ok:
            raise self._missing(name)
        return dropped

    def rehearse(self, name: str, task: Task | None, *, lenient: bool) -> None:
        """Define a task, or drop it (None), for this object only.

        Errors: see `define` and `drop`; `lenient` is their `replace` and `missing_ok`.
        """
        self._refuse_configured(name)
        stored = name not in self._rehearsed and self._stored.find(name) is not None
        known = stored or self._rehearsed.get(name) is not None
        if known and task is not None and not lenient:
            raise _exists(name)
        if not known and task is None and not lenient:
            raise self._missing(name)
        self._rehearsed[name] = task

    def table(self) -> pa.Table:
        """All tasks, those of the configuration first."""
        rows: list[dict[str, object]] = [
            {
                "name": name,
                "defined_in": "configuration",
                "prompt": section.prompt,
                "labels": list(section.labels),
                "equal": section.equal,
            }
            for name, section in self._settings.tasks.items()
        ]
        rows += [
            {
                "name": task.name,
                "version": task.version,
                "defined_in": "SQL",
                "defined_at": int(task.at * 1e6),
                **task.fields,
            }
            for task in self._stored.all()
            if task.name not in self._settings.tasks
        ]
        return pa.Table.from_pylist(rows, schema=TASKS)

    def _missing(self, name: str) -> QueryError:
        known = ", ".join(task.name for task in self._stored.all()) or "none"
        return QueryError(
            f"there is no smart task {name!r} (defined with SQL: {known}). FROM smart_tasks() "
            f"lists all; DROP SMART TASK IF EXISTS does not mind."
        )

    def _refuse_configured(self, name: str) -> None:
        if name in self._settings.tasks:
            raise ConfigError(
                f"task {name!r} is defined in the configuration, where it stays: change it there, "
                f"or choose another name."
            )


def _exists(name: str) -> QueryError:
    return QueryError(
        f"there is a smart task {name!r} already. Write CREATE OR REPLACE SMART TASK for a "
        f"new version of it, or DROP SMART TASK {name} first."
    )
