"""What a user opens: a DuckDB connection on which smart calls work."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping
from threading import Lock
from typing import Any

import duckdb

from smartsql.asking.backends import build, count_together
from smartsql.asking.exchange import Progress
from smartsql.config import Config, Settings, load
from smartsql.config.keys import Keyring
from smartsql.engine import Engine
from smartsql.ledger import Ledger
from smartsql.reports.report import Report
from smartsql.sql import session
from smartsql.sql.barrier import Barrier
from smartsql.sql.macros import install, installed

_users: dict[Engine, int] = {}
"""Open connections of each engine that this module made.

A connection that is merely forgotten stays counted: a relation made on it may still be read.
"""
_lock = Lock()


@atexit.register
def _close_engines() -> None:
    """Release models and ledgers of connections that nobody closed."""
    for engine in list(_users):
        engine.close()


class Connection(session.Connection):
    """A DuckDB connection with smart calls, the reports of its calls, and their price beforehand.

    Everything that is not about smart calls is DuckDB's own.
    """

    engine: Engine

    def __init__(self, connection: duckdb.DuckDBPyConnection, barrier: Barrier) -> None:
        super().__init__(connection, barrier)
        with _lock:
            _users[self.engine] = _users.get(self.engine, 0) + 1
        self._is_open = True

    def _planned(self, query: session.Sql) -> session.Sql:
        """The statement as DuckDB is to run it; what it asks has the keys of this moment."""
        self.engine.keys.read(self._con)
        return super()._planned(query)

    @property
    def reports(self) -> list[Report]:
        """One report for each smart call, oldest first; `reports[-1]` is the last one."""
        return self.engine.history

    def close(self) -> None:
        """Close the connection, and with the last one of its engine models and ledger."""
        super().close()
        if self._is_open:
            self._is_open = False
            _release(self.engine)


def connect(
    database: str | os.PathLike[str] = ":memory:",
    config: Config | None = None,
    *,
    read_only: bool = False,
    progress: Progress | None = None,
    duckdb_config: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Connection:
    """Open a DuckDB database with smart calls; behaves as a DuckDB connection.

    Args:
        database: a file, or ":memory:".
        config: a `smartsql.toml`, or settings; without it, see `smartsql.config.load`.
        read_only: open the file for reading only.
        progress: called with (model, done, total of this step, USD so far).
        duckdb_config: DuckDB's own configuration, as in `duckdb.connect(config=...)`.
        **settings: anything that `smartsql.toml` may hold (`models=[...]`, `budget_usd=1.0`, ...);
            wins over file and environment.

    Raises:
        ConfigError: the configuration cannot be used.
        LedgerError: the store of paid answers cannot be used.
    """
    loaded = load(config, **settings)
    connection = duckdb.connect(
        os.fspath(database), read_only=read_only, config=dict(duckdb_config or {})
    )
    try:
        return Connection(connection, install(connection, _engine(connection, loaded, progress)))
    except BaseException:
        connection.close()  # nobody else has it, and an open one would lock the file
        raise


def register(
    connection: duckdb.DuckDBPyConnection,
    config: Config | None = None,
    *,
    persist: bool = False,
    **settings: Any,
) -> Engine:
    """Make smart calls known on any DuckDB connection (dbt, SQLAlchemy, notebooks).

    Calls work in the SELECT list, QUALIFY, ORDER BY, CTEs, views, CTAS, INSERT, COPY and prepared
    statements; for calls in WHERE use `connect`, or QUALIFY.

    Args:
        connection: a DuckDB connection. Keys that models have in its secrets are read now.
        persist: store the macros in a database file instead of for this connection alone.

    Returns:
        The engine; `engine.history[-1]` is the report of the last call.
    """
    engine = _engine(connection, load(config, **settings), None)
    engine.keys.read(connection)
    session.register(connection, engine, persist=persist)
    return engine


def _engine(
    connection: duckdb.DuckDBPyConnection, settings: Settings, progress: Progress | None
) -> Engine:
    """The engine for a connection: that of its database if it has the same configuration."""
    barrier = installed(connection)
    engine = barrier.engine if barrier is not None else None
    if isinstance(engine, Engine) and engine.settings == settings:
        return engine
    keys = Keyring(settings.models)
    backends = build(settings, keys)
    store = Ledger(settings.store)
    count_together(backends, store)
    return Engine(settings, backends, store, progress=progress, keys=keys)


def _release(engine: Engine) -> None:
    """One connection less; the last one closes models and ledger."""
    with _lock:
        _users[engine] -= 1
        if _users[engine]:
            return
        del _users[engine]
    engine.close()
