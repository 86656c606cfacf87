"""The normaliser: moves smart calls to places where DuckDB can run the barrier.

A smart call expands to a window function. Where DuckDB allows one, the text of a statement is
left alone, byte for byte. Where it does not, the statement is rewritten so that the same rows
come out and each call sees exactly the rows its SELECT lets through. What cannot be rewritten is
refused before anything is spent, with a text that says what to write instead.

`plan` has the order of the rules and `statements` what stands around a query. What they are made
of, each package with imports only from those before it:

- `syntax`: text to trees and back, with the proof that a rewritten query is the one written.
- `calls`: smart calls in a tree; `text`: the words of a statement, and its shape.
- `binding`: what names mean; `analysis`: what a query tells about its conditions and rows.
- `hoisting`: rules that a statement cannot run without; `pushdown`: those that spare questions.
- `dml`: statements that change rows; `stored`: macros and views that lead to a call.
"""

from __future__ import annotations

from smartsql.sql.normalise.plan import normalise
from smartsql.sql.normalise.text.words import mentions_smart_call

__all__ = ["mentions_smart_call", "normalise"]
