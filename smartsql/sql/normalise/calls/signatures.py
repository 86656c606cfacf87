"""What a call says beside its input, checked where it is written as a literal.

The same is checked when rows arrive; a statement over an empty table has none.
"""

from __future__ import annotations

import json

from sqlglot import exp

from smartsql.calls.typed import SUBJECTS, options_of
from smartsql.errors import ParameterError

SIGNATURES = {
    "smart_llm": ("prompt", "delta", "gamma", "task", "per", "site"),
    "smart_filter": ("input", "question", "delta", "gamma", "per", "site"),
    "smart_classify": ("input", "labels", "delta", "gamma", "instruction", "per", "site"),
    "smart_extract": ("input", "structure", "delta", "gamma", "instruction", "per", "site"),
}
"""Parameters of each function in their order."""


def arguments(call: exp.Expr) -> dict[str, exp.Expr]:
    """The arguments of a call by their names; those of the table form as well."""
    names = SIGNATURES[call.name.lower()]
    if isinstance(call.parent, exp.Table):
        names = ("table", *names)
    found: dict[str, exp.Expr] = {}
    for position, argument in enumerate(call.expressions):
        if isinstance(argument, (exp.PropertyEQ, exp.Kwarg)):
            found[argument.name.lower()] = argument.expression
        elif position < len(names):
            found[names[position]] = argument
    return found


def check_subject(call: exp.Expr) -> None:
    """Check question, labels and structure.

    Raises:
        ParameterError: see `calls.typed.options_of`; a column where a constant must be.
    """
    kind = call.name.lower().removeprefix("smart_")
    if kind not in SUBJECTS:
        return
    given = arguments(call)
    subject = given.get(SUBJECTS[kind])
    if subject is None:
        return  # DuckDB says which arguments there are
    for name in (SUBJECTS[kind], "instruction"):
        column = given[name].find(exp.Column) if name in given else None
        if column is not None:
            raise ParameterError(
                f"{name} of {call.name.lower()} is not constant: it has the column "
                f"{column.name!r}. Write it as a constant; what differs from row to row belongs "
                f"into the input, such as concat({column.name}, ': ', text)."
            )
    written = _written(subject)
    if written is not None or isinstance(subject, exp.Null):
        options_of(kind, written, None)


def _written(subject: exp.Expr) -> str | None:
    """A literal as the barrier gets it: a text, or texts as a JSON array; None for others."""
    if isinstance(subject, exp.Literal) and subject.is_string:
        return str(subject.this)
    if isinstance(subject, exp.Array):
        items = subject.expressions
        texts = [None if isinstance(item, exp.Null) else item.this for item in items]
        plain = (isinstance(i, exp.Null) or (i.is_string and not i.expressions) for i in items)
        return json.dumps(texts) if all(plain) else None
    return None
