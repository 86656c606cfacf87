"""The SQL names of smartsql on a DuckDB connection: functions, macros, and who owns them.

Functions belong to the database instance, macros to a schema. In a database in memory the macros
are made in schema `main`, where every cursor finds them; in a database file they are TEMP macros
of each connection, so that nothing is left behind in the file (unless `persist` asks for it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from threading import Lock

import duckdb
import pyarrow as pa
from duckdb.func import FunctionNullHandling, PythonUDFType

from smartsql.errors import ConfigError, QueryError
from smartsql.sql.barrier import Barrier
from smartsql.sql.definitions import (
    CALLS,
    COLLECT_MORE_TYPES,
    COLLECT_TYPES,
    CONNECTION_VARIABLE,
)
from smartsql.sql.protocol import Engine

_TABLES = ("reports", "models", "ledger", "tasks")
_DETAIL_TYPE = (
    "STRUCT(answer VARCHAR, model VARCHAR, source VARCHAR, confidence DOUBLE, "
    "cost_usd DOUBLE, error VARCHAR)"
)
_MACROS = CALLS | {
    f"smart_{name}()": f"TABLE SELECT unnest(__smart_{name}(0), max_depth := 2)" for name in _TABLES
}
_PATH = "SELECT path FROM duckdb_databases() WHERE database_name = current_database()"

_registry_lock = Lock()
_numbers = count(1)
_connections = count(1)
_barriers: dict[int, Barrier] = {}
"""Barriers by number, for as long as the process lives: DuckDB keeps a borrowed reference to the
functions it was given, and calling one that Python has freed ends the process."""


def install(con: duckdb.DuckDBPyConnection, engine: Engine, *, persist: bool = False) -> Barrier:
    """Make the smart functions available on a connection; harmless if they already are.

    Args:
        con: any DuckDB connection or cursor, outside a transaction.
        engine: what answers; one for each database instance.
        persist: store the macros in the database file, for cursors nobody hands to us. They
            need smartsql to be registered whenever they are used.

    Raises:
        QueryError: the connection is inside a transaction, whose ROLLBACK would undo this.
        ConfigError: the instance has another engine.
    """
    if _in_transaction(con):
        raise QueryError(
            "cannot register smart_llm inside a transaction, since ROLLBACK would remove it "
            "again. Register before BEGIN or after COMMIT."
        )
    with _registry_lock:
        barrier = installed(con)
        if barrier is None:
            barrier = _create_functions(con, engine)
    if barrier.engine is not engine:
        raise ConfigError(
            "this DuckDB instance already answers smart_llm with another configuration. Use the "
            "session that was opened first (or a cursor of it), or close all its connections."
        )
    with _registry_lock:  # two connections must not replace the same macro at once
        if persist or _is_in_memory(con):
            _create_macros(con, "", "main.")
    create_macros(con)
    return barrier


def create_macros(con: duckdb.DuckDBPyConnection) -> None:
    """Create the macros for one connection, whatever schema it uses."""
    _create_macros(con, "TEMP ", "")


def _create_macros(con: duckdb.DuckDBPyConnection, temporary: str, schema: str) -> None:
    for signature, body in _MACROS.items():
        con.execute(f"CREATE OR REPLACE {temporary}MACRO {schema}{signature} AS {body}")


def introduce(con: duckdb.DuckDBPyConnection, number: int | None = None) -> int:
    """Give a connection a number of its own, by which its sets are told from others'.

    Args:
        number: the one it must have, whatever a statement set meanwhile.
    """
    known = _connection_number(con)
    if known is None or number not in (None, known):
        known = number or next(_connections)
        con.execute(f"SET VARIABLE {CONNECTION_VARIABLE} = {known}")
    return known


def _connection_number(con: duckdb.DuckDBPyConnection) -> int | None:
    number = _value(con, f"SELECT getvariable('{CONNECTION_VARIABLE}')")
    return None if number is None else int(str(number))


def _in_transaction(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether two statements share one transaction."""
    return _value(con, "SELECT txid_current()") == _value(con, "SELECT txid_current()")


def _is_in_memory(con: duckdb.DuckDBPyConnection) -> bool:
    return _value(con, _PATH) is None


def _value(con: duckdb.DuckDBPyConnection, query: str) -> object:
    row = con.execute(query).fetchone()
    return None if row is None else row[0]


def installed(con: duckdb.DuckDBPyConnection) -> Barrier | None:
    """The barrier whose functions this instance has."""
    known = "SELECT 1 FROM duckdb_functions() WHERE function_name = '__smart_instance'"
    if _value(con, known) is None:
        return None
    return _barriers[int(str(_value(con, "SELECT __smart_instance(0)")))]


def _create_functions(con: duckdb.DuckDBPyConnection, engine: Engine) -> Barrier:
    """Register the functions in the instance; the barrier they belong to."""
    barrier = Barrier(engine)
    number = next(_numbers)
    _barriers[number] = barrier

    def instance(rows: pa.ChunkedArray) -> pa.Array:
        return pa.array([number] * len(rows), pa.int64())

    def kept(function: Callable[..., pa.Array]) -> Callable[..., pa.Array]:
        # a bound method is a new object each time, and DuckDB borrows the one it is given
        barrier.functions.append(function)
        return function

    _create(con, "__smart_instance", kept(instance), ["BIGINT"], "BIGINT")
    _create(con, "__smart_collect", kept(barrier.collect), COLLECT_TYPES, "BIGINT")
    _create(con, "__smart_collect_more", kept(barrier.collect_more), COLLECT_MORE_TYPES, "BIGINT")
    _create(con, "__smart_seal", kept(barrier.seal), ["MAP(BIGINT, UBIGINT)"], "BIGINT")
    _create(con, "__smart_answer", kept(barrier.answer), ["VARCHAR", "BIGINT"], "VARCHAR")
    _create(con, "__smart_detail", kept(barrier.detail), ["VARCHAR", "BIGINT"], _DETAIL_TYPE)
    for name in _TABLES:
        _create_listing(con, barrier, name)
    return barrier


def _create_listing(con: duckdb.DuckDBPyConnection, barrier: Barrier, name: str) -> None:
    """Register a function that returns one of the engine's tables as a list of structs."""

    def listing(rows: pa.ChunkedArray) -> pa.Array:
        table: pa.Table = getattr(barrier.engine, name)()
        structs = table.to_struct_array()
        values = structs.combine_chunks() if structs.num_chunks != 1 else structs.chunk(0)
        offsets = [0] + [len(values)] * len(rows)
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)

    barrier.functions.append(listing)
    relation = con.from_arrow(barrier.engine.schema(name).empty_table())
    columns = ", ".join(
        f'"{column}" {kind}' for column, kind in zip(relation.columns, relation.types, strict=True)
    )
    # with side effects, so that it is called when a statement runs and not while it is planned
    _create(con, f"__smart_{name}", listing, ["BIGINT"], f"STRUCT({columns})[]", volatile=True)


def _create(
    con: duckdb.DuckDBPyConnection,
    name: str,
    function: Callable[..., pa.Array],
    parameters: Sequence[str],
    returns: str,
    *,
    volatile: bool = False,
) -> None:
    con.create_function(
        name,
        function,
        list(parameters),
        returns,
        type=PythonUDFType.ARROW,
        null_handling=FunctionNullHandling.SPECIAL,
        side_effects=volatile,
    )
