"""`--dry-run`: what statements would cost, while no model can be reached and nothing is kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from smartsql.cli.output import say
from smartsql.errors import QueryError

if TYPE_CHECKING:
    from smartsql.api import Connection
    from smartsql.cli.statements import Statement

_RUN = frozenset(
    (
        *("SELECT", "EXPLAIN", "RELATION", "PREPARE", "EXECUTE", "CALL", "PRAGMA", "ANALYZE"),
        *("INSERT", "UPDATE", "DELETE", "MERGE_INTO", "CREATE", "CREATE_FUNC", "ALTER", "DROP"),
        *("SET", "VARIABLE_SET", "LOAD", "ATTACH", "DETACH", "MULTI"),
    )
)
"""Kinds of statements that a transaction undoes, or that change this session only."""
_LEAVES_TRACES = re.compile(
    r"\s*(FORCE\s+)?INSTALL\b|\s*CREATE\s+(OR\s+REPLACE\s+)?PERSISTENT\b|\s*(FORCE\s+)?CHECKPOINT\b"
    r"|\s*PRAGMA\s+(force_)?checkpoint\b|\s*PREPARE\s+\S+\s+AS\s+(COPY|EXPORT|ATTACH|FORCE|INSTALL)\b",
    re.IGNORECASE,
)
_ATTACHED = re.compile(r"\s*ATTACH\b[^']*'([^']+)'", re.IGNORECASE)
_COPIED = re.compile(r'\s*COPY\s+("[^"]+"|[\w.]+)\s+TO\b', re.IGNORECASE)
_PREPARED = re.compile(r'\s*(?:PREPARE|EXECUTE)\s+("[^"]+"|\w+)', re.IGNORECASE)


class DryRun:
    """The statements of one dry run, inside one transaction that is rolled back.

    Attributes:
        not_run: statements that would have changed something, with calls in them.
        left_out: names of prepared statements that were not prepared.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.not_run: list[str] = []
        self.left_out: set[str] = set()

    def run(self, texts: list[str]) -> None:
        """Show what the calls of all statements would cost.

        Raises:
            QueryError: a statement cannot be run.
        """
        import duckdb

        from smartsql.cli.query import one_line
        from smartsql.cli.statements import statements

        self.connection.execute("BEGIN")
        try:
            for text in texts:
                for statement in statements(self.connection, text):
                    self._statement(statement)
        except (duckdb.CatalogException, duckdb.BinderException) as error:
            raise QueryError(one_line(error) + _not_created(self.not_run)) from error
        except duckdb.Error as error:
            raise QueryError(str(error)) from error
        finally:
            self.connection.rollback()

    def _statement(self, statement: Statement) -> None:
        text = statement.query
        kind = statement.kind
        if kind == "SMART_TASK":
            self.connection.rehearse_task(text)
            return
        copied = _COPIED.match(text)
        query = f"FROM {copied[1]}" if copied else text
        if kind == "EXECUTE" and _name(text) in self.left_out:
            say(f"dry run, left out: {text.strip()}")
        elif kind != "PREPARE" and self.connection.has_calls(query):
            for preview in self.connection.preview(query):
                say(str(preview), err=False)
            if kind not in ("SELECT", "EXPLAIN"):
                self.not_run.append(text.strip().rstrip(";"))
        elif self._leaves_traces(text, kind):
            say(f"dry run, left out: {text.strip()}")
        else:
            for preview in self.connection.rehearse(text):
                say(str(preview), err=False)

    def _leaves_traces(self, text: str, kind: str) -> bool:
        """Whether a rollback would not undo all that a statement does."""
        attached = _ATTACHED.match(text) if kind == "ATTACH" else None
        makes_file = attached is not None and not (
            ":" in attached[1] or Path(attached[1]).expanduser().exists()
        )
        if kind in _RUN and not makes_file and not _LEAVES_TRACES.match(text):
            return False
        if kind == "PREPARE":
            self.left_out.add(_name(text))
        return True


def _name(text: str) -> str:
    """The name of a prepared statement in PREPARE or EXECUTE; empty for others."""
    found = _PREPARED.match(text)
    return found[1].strip('"').lower() if found else ""


def _not_created(not_run: list[str]) -> str:
    """Why a statement of a dry run may miss what an earlier one makes."""
    if not not_run:
        return ""
    return (
        f" The dry run created nothing for the statements with smart calls before this one "
        f"({'; '.join(not_run)}); preview the statements that need them after those have run."
    )
