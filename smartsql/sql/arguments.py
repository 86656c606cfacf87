"""The arguments of a call as they arrive, chunk by chunk: checked, and made a `Call`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import pyarrow as pa

from smartsql.calls.typed import SUBJECTS, options_of
from smartsql.errors import ParameterError, UnplannableCallError
from smartsql.sql.protocol import Call
from smartsql.sql.sets import constant
from smartsql.types import IntArray, Requirement

SEPARATOR = "\x1f"
"""Stands between the texts of the arguments in one argument of `__smart_collect`."""

_VOLATILE = re.compile(
    r"\b(random|uuid|uuidv4|uuidv7|gen_random_uuid|nextval|current_query_id)\(", re.IGNORECASE
)
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")


def call_of(
    text: str, shown: Callable[[str], str], delta: pa.Array, gamma: pa.Array, task: pa.Array
) -> Call:
    """A call whose answers are texts, with its parameters checked.

    Args:
        text: SQL text of the prompt, as DuckDB has it.
        shown: makes of such a text what the user wrote.

    Raises:
        ParameterError: delta, gamma or task vary; delta or gamma are NULL or out of range.
        UnplannableCallError: the prompt changes at every evaluation.
    """
    written = shown(text)
    title = f"smart_llm({written})"
    _check_stable(text, title)
    requirement = _requirement(delta, gamma, title)
    template = constant("task", task, title)
    return Call(written, requirement.delta, requirement.gamma, cast("str | None", template))


def typed_call_of(
    texts: list[str],
    shown: Callable[[str], str],
    delta: pa.Array,
    gamma: pa.Array,
    task: pa.Array,
    subject: pa.Array,
    instruction: pa.Array,
) -> Call:
    """A call whose answers have a type, or whose rows are in groups; see `texts`.

    Args:
        texts: SQL texts of prompt, delta, gamma, task or instruction, then the kind of the call,
            the SQL text of its subject, and that of `per` where its rows are in groups.
        shown: see `call_of`.

    Raises:
        ParameterError, UnplannableCallError: see `call_of`; of subject and instruction as well.
    """
    text, kind = texts[0], texts[4]
    per = texts[6] if len(texts) > 6 else None
    written = shown(text)
    title = f"smart_{kind}({written})"
    for argument in (text, per or ""):
        _check_stable(argument, title)
    per = per if per is None else shown(per)
    requirement = _requirement(delta, gamma, title)
    template, options = None, ""
    if kind == "llm":
        template = cast("str | None", constant("task", task, title))
    else:
        asked = constant(SUBJECTS[kind], subject, title)
        said = constant("instruction", instruction, title)
        options = options_of(kind, cast("str | None", asked), cast("str | None", said))
    return Call(written, requirement.delta, requirement.gamma, template, kind, options, per)


def _check_stable(text: str, title: str) -> None:
    if _VOLATILE.search(_QUOTED.sub("''", text)):
        function = title.partition("(")[0]
        raise UnplannableCallError(
            title,
            "an argument that changes at every evaluation",
            "Compute it first, in WITH q AS MATERIALIZED (SELECT .. AS prompt), and call "
            f"{function}(q.prompt).",
        )


def _requirement(delta: pa.Array, gamma: pa.Array, title: str) -> Requirement:
    given = {"delta": constant("delta", delta, title), "gamma": constant("gamma", gamma, title)}
    for name, value in given.items():
        if value is None:
            raise ParameterError(
                f"{name} of {title} is NULL; give a number, such as delta := 0.1, gamma := 0.95."
            )
    return Requirement(cast(float, given["delta"]), cast(float, given["gamma"]))


def by_group(values: pa.Array) -> Iterator[tuple[bytes | None, IntArray]]:
    """The rows of each value of a chunk, the values in the order of their first row.

    Args:
        values: binary; null is a value.
    """
    encoded = values.dictionary_encode(null_encoding="encode")
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    yield from zip(encoded.dictionary.to_pylist(), rows_of_each(codes), strict=True)


def rows_of_each(keys: IntArray) -> list[IntArray]:
    """The rows of each key, ascending by key; `keys` has shape (n,), n at least 1."""
    order = np.argsort(keys, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)


def shown_group(value: bytes | None) -> str | None:
    """A group's value as text."""
    return None if value is None else value.decode("utf-8", "replace")
