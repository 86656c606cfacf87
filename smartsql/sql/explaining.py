"""EXPLAIN of smart calls: DuckDB's plan with the previews of the calls below."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def plan_with_previews(
    plan: Sequence[tuple[Any, ...]], previews: Sequence[object], *, as_json: bool
) -> tuple[str, list[str]]:
    """A query for rows of key and text, and its parameters.

    Args:
        plan: the rows of DuckDB's EXPLAIN.
        previews: one for each call, or a text about calls that cannot be reckoned.
        as_json: write previews as JSON.
    """
    write = _json if as_json else str
    rows = [*plan, *(("smart_call", write(preview)) for preview in previews)]
    values = ", ".join("(?, ?)" for _ in rows)
    return (
        f"SELECT * FROM (VALUES {values}) AS plan(explain_key, explain_value)",
        [cell for row in rows for cell in row],
    )


def _json(preview: object) -> str:
    """A preview as JSON: its fields, or what it says."""
    fields = preview.to_dict() if hasattr(preview, "to_dict") else {"preview": str(preview)}
    return json.dumps(fields)
