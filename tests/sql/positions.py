"""The corpus of positions: statements with calls wherever SQL allows a function, read from files.

A file holds statements apart by empty lines, each under a comment of its own:

    -- name
    -- refused                    nothing is asked, and an error says what would work
    -- setup: SQL                 run before, on both sides
    -- plain: SQL                 the text for plain DuckDB, where it differs
    -- parameters: JSON           of the last statement
    -- asks: SQL                  the distinct inputs that are needed: exactly those are asked
    -- wave                       asks may go on for one wave beyond what is needed
    -- after: SQL                 what a changing statement left behind
    -- ordered                    rows come in the same order
    -- any rows                   only that it runs, and what it asks
    -- any asks                   which rows are sampled is left to chance
    -- casts                      arguments are no texts
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parent / "fixtures"


@dataclass(frozen=True, slots=True)
class Position:
    """One statement of the corpus; `notes` holds its comments by their first words."""

    file: str
    name: str
    text: str
    notes: dict[str, str]

    @property
    def plain(self) -> str:
        """The text that plain DuckDB gets."""
        return self.notes.get("plain", self.text)

    @property
    def parameters(self) -> Any:
        """Parameters of the last statement, None for none."""
        return json.loads(self.notes.get("parameters", "null"))

    @property
    def changes(self) -> bool:
        """Whether it may leave anything behind for later statements."""
        return "setup" in self.notes or "after" in self.notes or self.file in ("stored", "change")

    @property
    def casts(self) -> bool:
        """Whether plain DuckDB needs a macro: for casts, named arguments, the table form."""
        options = any(
            word in self.plain for word in ("delta", "gamma", "0.2", "$d", "smart_llm(t, ")
        )
        return options or "casts" in self.notes or self.file == "table_form"

    @property
    def tables(self) -> str:
        """Statements that make the tables."""
        name = "tpch_tables.sql" if self.file == "tpch" else "positions_tables.sql"
        return (FIXTURES / name).read_text()


def positions() -> list[Position]:
    """All of them, by file."""
    return [
        _position(path.stem, block)
        for path in sorted((FIXTURES / "positions").glob("*.sql"))
        for block in path.read_text().strip().split("\n\n")
    ]


def _position(file: str, block: str) -> Position:
    lines = block.splitlines()
    n_notes = next(k for k, line in enumerate(lines) if not line.startswith("-- "))
    name, *notes = (line.removeprefix("-- ") for line in lines[:n_notes])
    parts = (note.partition(": ") for note in notes)
    return Position(file, name, "\n".join(lines[n_notes:]), {key: value for key, _, value in parts})
