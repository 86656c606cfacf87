"""What to say when DuckDB refuses a smart call: where it stands, or what it is told.

The normaliser moves calls that it sees. One inside a macro of the user, or in a text that it
cannot read, reaches DuckDB as it is, which then speaks of window functions.
"""

from __future__ import annotations

import re

import duckdb

from smartsql.calls.typed import STRUCTURES
from smartsql.errors import ParameterError, QueryError
from smartsql.sql.normalise.calls.clauses import NAMES

_WINDOW = re.compile(r"window function", re.IGNORECASE)
_STRUCTURE = re.compile(
    r"Malformed JSON|json_transform_strict|Type with name (?P<type>\S+) does not exist"
)
_MACROS = (
    "SELECT function_name, macro_definition FROM duckdb_functions() "
    "WHERE NOT internal AND macro_definition IS NOT NULL"
)


def misplaced_call(
    error: BaseException, query: str, con: duckdb.DuckDBPyConnection
) -> QueryError | None:
    """The error for a smart call that DuckDB refused where it stands; None for other errors.

    Args:
        error: what DuckDB raised.
        query: the text it raised it for.
        con: the connection, whose macros may hold the call.
    """
    if not isinstance(error, duckdb.BinderException) or not speaks_of_windows(error):
        return None
    used = [name for name in sorted(_smart_macros(con)) if _calls(query, name)]
    if not used:
        return None  # a window function of the user's own
    through = [name for name in used if name not in NAMES]
    name = through[0] if through else used[0]
    advice = (
        f"Here {name}(..) is a smart call, which runs as a window function. For a condition write "
        f"SELECT .. QUALIFY {name}(..) = .. instead of WHERE; elsewhere compute it in a subquery, "
        f"(SELECT *, {name}(..) AS answer FROM ..), and use answer."
    )
    if through:
        advice += (
            f" Or call the smart function itself instead of through the macro {name}: then it is "
            f"moved."
        )
    return QueryError(f"{error}\n{advice}")


def unusable_structure(error: BaseException, query: str) -> ParameterError | None:
    """The error for a structure of `smart_extract` that DuckDB could not read; None for others.

    DuckDB reads it while it plans, before the rows of the call are collected. A literal was looked
    at earlier, so this is one that came as a parameter, or from a variable.

    Args:
        error: what DuckDB raised.
        query: the text it raised it for.
    """
    found = _STRUCTURE.search(str(error))
    if found is None or not _calls(query, "smart_extract"):
        return None
    if found["type"] and re.search(rf"\b{re.escape(found['type'])}\b", query, re.IGNORECASE):
        return None  # a type that the query itself names
    said = str(error).partition("\n")[0]
    return ParameterError(f"the structure of smart_extract cannot be read: {said} {STRUCTURES}")


def speaks_of_windows(error: BaseException) -> bool:
    """Whether DuckDB refused a window function."""
    return _WINDOW.search(str(error)) is not None


def _smart_macros(con: duckdb.DuckDBPyConnection) -> set[str]:
    """Names of the macros that lead to a smart call, and of the functions themselves."""
    names = set(NAMES)
    macros = _macros(con)
    known = 0
    while known != len(names):
        known = len(names)
        names |= {
            name for name, body in macros if any(_calls(body, other) for other in list(names))
        }
    return names


def _macros(con: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    """Names and definitions of the user's macros, as far as they can be read."""
    try:
        return con.execute(_MACROS).fetchall()
    except duckdb.TransactionException:  # the error ended the transaction: ask beside it
        with con.cursor() as beside:
            return beside.execute(_MACROS).fetchall()


def _calls(text: str, name: str) -> bool:
    """Whether a function of this name is called in a text, as far as a glance tells."""
    pattern = rf'(?<![\w$]){re.escape(name)}"?\s*\('
    return re.search(pattern, text, re.IGNORECASE) is not None
