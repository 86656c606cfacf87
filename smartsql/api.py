"""What a user opens: a DuckDB connection on which smart calls work."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from smartsql.config import load
from smartsql.engine import Engine
from smartsql.gateway.build import build
from smartsql.ledger import Ledger

if TYPE_CHECKING:
    import duckdb

    from smartsql.exchange import Progress
    from smartsql.sql.session import Connection


def connect(
    database: str | os.PathLike[str] = ":memory:",
    config: str | os.PathLike[str] | None = None,
    *,
    read_only: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Connection:
    """Open a DuckDB database with smart calls; behaves as a DuckDB connection.

    Args:
        database: a file, or ":memory:".
        config: a `smartsql.toml`; see `smartsql.config.load` for where else it is searched.
        read_only: open the file for reading only.
        progress: called with (model, done, total of this step, USD so far).
        **settings: anything that `smartsql.toml` may hold (`models=[...]`, `budget_usd=1.0`, ...);
            wins over file and environment.

    Raises:
        ConfigError: the configuration cannot be used.
        LedgerError: the store of paid answers cannot be used.
    """
    import duckdb

    from smartsql.sql.session import open_session

    engine = open_engine(config, progress=progress, **settings)
    try:
        connection = duckdb.connect(os.fspath(database), read_only=read_only)
        return open_session(connection, engine, owns_engine=True)
    except BaseException:
        engine.close()
        raise


def register(
    connection: duckdb.DuckDBPyConnection,
    config: str | os.PathLike[str] | None = None,
    *,
    persist: bool = False,
    **settings: Any,
) -> Engine:
    """Make smart calls known on any DuckDB connection (dbt, SQLAlchemy, notebooks).

    Calls work in the SELECT list, QUALIFY, ORDER BY, CTEs, views, CTAS, INSERT, COPY and prepared
    statements; for calls in WHERE use `connect`, or QUALIFY.

    Args:
        connection: a DuckDB connection.
        persist: store the macros in a database file instead of for this connection alone.

    Returns:
        The engine; `engine.history[-1]` is the report of the last call.
    """
    from smartsql.sql.barrier import register as register_barrier

    engine = open_engine(config, **settings)
    register_barrier(connection, engine, persist=persist)
    return engine


def open_engine(
    config: str | os.PathLike[str] | None = None,
    *,
    progress: Progress | None = None,
    **settings: Any,
) -> Engine:
    """The engine of a configuration: models and ledger."""
    loaded = load(config, **settings)
    backends = build(loaded)
    return Engine(loaded, backends, Ledger(loaded.store), progress=progress)
