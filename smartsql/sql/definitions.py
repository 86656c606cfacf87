"""The macros behind the SQL names, as texts.

A call expands to a function that answers, over a window that has seen all its rows: see
`smartsql.sql.barrier`. With `per` the window is one for each group. Which of the two a call means
is known when it is bound, since only NULL has the type of NULL, so that DuckDB drops the other.
"""

from __future__ import annotations

from smartsql.sql.arguments import SEPARATOR
from smartsql.sql.sets import DETAIL

CONNECTION_VARIABLE = "smartsql_connection"
TASK_VARIABLE = "smartsql_task"

_PARAMETERS = "delta := 0.1, gamma := 0.95, task := NULL, per := NULL, site := 0"
_TYPED = "delta := 0.1, gamma := 0.95"
_LAST = "per := NULL, site := 0"
_TASK = f"coalesce(task, getvariable('{TASK_VARIABLE}'))::VARCHAR"
_NOTHING = "NULL::VARCHAR"
_GROUP = "encode(per::VARCHAR)"
"""As bytes, so that no collation takes two values for one."""


def _texts(*parts: str) -> str:
    """The texts of some arguments as one, by which a call is told from others."""
    return f"concat_ws(chr({ord(SEPARATOR)}), {', '.join(parts)})"


def _collected(name: str, prompt: str, task: str, site: str, *more: str) -> str:
    arguments = (
        f"{prompt}::VARCHAR",
        "delta::DOUBLE",
        "gamma::DOUBLE",
        task,
        "txid_current()::BIGINT",
        site,
        "site::BIGINT",
        f"getvariable('{CONNECTION_VARIABLE}')::BIGINT",
        *more,
    )
    return f"histogram({name}({', '.join(arguments)}))"


def _sealed(whole: str, grouped: str) -> str:
    """The number of the set of each row, once the window has counted it."""
    # DuckDB joins a query with itself where a window is plain; the frame keeps it one
    frame = "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING"
    return (
        f"__smart_seal(CASE WHEN typeof(per) = '\"NULL\"' THEN {whole} OVER () "
        f"ELSE {grouped} OVER (PARTITION BY {_GROUP} {frame}) END)"
    )


def _plain_seal() -> str:
    """For answers that are texts."""
    names = [f"alias({name})" for name in ("prompt", "delta", "gamma", "task")]
    whole = _collected("__smart_collect", "prompt", _TASK, _texts(*names))
    site = _texts(*names, "'llm'", "''", "alias(per)")
    more = (_NOTHING, _NOTHING, _GROUP)
    return _sealed(whole, _collected("__smart_collect_more", "prompt", _TASK, site, *more))


def _typed_answer(kind: str, subject: str, value: str, *, instructed: bool = True) -> str:
    """The text that answers a call whose answers have a type.

    Args:
        subject: name of the parameter that says what is asked.
        value: the same as a text.
        instructed: there is a parameter `instruction`.
    """
    said = "alias(instruction)" if instructed else "''"
    names = ["alias(input)", "alias(delta)", "alias(gamma)", said, f"'{kind}'", f"alias({subject})"]
    told = "instruction::VARCHAR" if instructed else _NOTHING

    def collected(site: str, group: str) -> str:
        name = "__smart_collect_more"
        return _collected(name, "input", _NOTHING, site, value, told, group)

    whole = collected(_texts(*names), "NULL::BLOB")
    grouped = collected(_texts(*names, "alias(per)"), _GROUP)
    return f"__smart_answer(input::VARCHAR, {_sealed(whole, grouped)})"


_TABLE_FORM = (
    "SELECT * EXCLUDE (__smart), "
    + ", ".join(f"__smart.{name} AS {name}" for name in DETAIL)
    + " FROM (SELECT t.*, __smart_details(col, delta, gamma, task, per, site) AS __smart "
    "FROM query_table(tbl) t)"
)

CALLS = {
    f"smart_llm(prompt, {_PARAMETERS})": f"__smart_answer(prompt::VARCHAR, {_plain_seal()})",
    f"smart_filter(input, question, {_TYPED}, {_LAST})": (
        f"({_typed_answer('filter', 'question', 'question::VARCHAR', instructed=False)})::BOOLEAN"
    ),
    f"smart_classify(input, labels, {_TYPED}, instruction := NULL, {_LAST})": _typed_answer(
        "classify",
        "labels",
        # what is no list goes on as it is, and is refused in our words
        "coalesce(to_json(TRY_CAST(labels AS VARCHAR[])), to_json(labels))::VARCHAR",
    ),
    f"smart_extract(input, structure, {_TYPED}, instruction := NULL, {_LAST})": (
        "json_transform_strict("
        f"{_typed_answer('extract', 'structure', 'structure::VARCHAR')}, structure)"
    ),
    f"__smart_details(prompt, {_PARAMETERS})": f"__smart_detail(prompt::VARCHAR, {_plain_seal()})",
    f"smart_llm(tbl, col, {_PARAMETERS})": f"TABLE {_TABLE_FORM}",
}
"""Bodies of the macros that call models, by their signatures."""

COLLECT_TYPES = (
    *("VARCHAR", "DOUBLE", "DOUBLE", "VARCHAR", "BIGINT", "VARCHAR", "BIGINT", "BIGINT"),
)
COLLECT_MORE_TYPES = (*COLLECT_TYPES, "VARCHAR", "VARCHAR", "BLOB")
