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

    def task(self, name: str | None) -> Task:
        """The task of that name, the default task, or prompts sent as they stand.

        Raises:
            ConfigError: no task of that name.
        """
        name = name or self._settings.default_task
        if name is not None and name not in self._settings.tasks:
            found = self._stored.find(name)
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
            raise QueryError(
                f"there is a smart task {name!r} already. Write CREATE OR REPLACE SMART TASK for a "
                f"new version of it, or DROP SMART TASK {name} first."
            )
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
            known = ", ".join(task.name for task in self._stored.all()) or "none"
            raise QueryError(
                f"there is no smart task {name!r} (defined with SQL: {known}). FROM smart_tasks() "
                f"lists all; DROP SMART TASK IF EXISTS does not mind."
            )
        return dropped

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

    def _refuse_configured(self, name: str) -> None:
        if name in self._settings.tasks:
            raise ConfigError(
                f"task {name!r} is defined in the configuration, where it stays: change it there, "
                f"or choose another name."
            )
