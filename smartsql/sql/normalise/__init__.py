"""The normaliser: moves smart calls to places where DuckDB can run the barrier.

A smart call expands to a window function. Where DuckDB allows one, the text of a statement is
left alone, byte for byte. Where it does not, the statement is rewritten so that the same rows
come out and each call sees exactly the rows its SELECT lets through. What cannot be rewritten is
refused before anything is spent, with a text that says what to write instead.
"""

from __future__ import annotations

from smartsql.sql.normalise.plan import normalise
from smartsql.sql.normalise.previews import previewable
from smartsql.sql.normalise.text import mentions_smart_call

__all__ = ["mentions_smart_call", "normalise", "previewable"]
