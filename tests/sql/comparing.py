"""A session over the double beside plain DuckDB with the same function, and both asked the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import duckdb
from duckdb.func import FunctionNullHandling

from smartsql.sql.session import Connection, connect
from tests.sql.doubles import RecordingEngine, tone
from tests.sql.positions import FIXTURES

TABLES = (FIXTURES / "positions_tables.sql").read_text()
_OPTIONS = "delta := 0.1, gamma := 0.95, task := NULL, site := 0"
_TABLE_FORM = (
    "SELECT t.*, __tone(col::VARCHAR) AS answer, 'double' AS model, 'reference' AS source, "
    "0.5::DOUBLE AS confidence, 0.01::DOUBLE AS cost_usd, NULL::VARCHAR AS error "
    "FROM query_table(tbl) t"
)


class Plain:
    """DuckDB alone, where smart_llm is the double's function and writes down what it was asked.

    Args:
        tables: statements run first.
        casts: through a macro, which casts its argument and knows the options and the table form.
    """

    def __init__(self, tables: str, *, casts: bool = False) -> None:
        self.asked: set[str] = set()
        self.con = duckdb.connect(config={"threads": 1})
        self.con.create_function(
            "__tone" if casts else "smart_llm",
            self._say,
            ["VARCHAR"],  # type: ignore[list-item]
            "VARCHAR",  # type: ignore[arg-type]
            null_handling=FunctionNullHandling.SPECIAL,
        )
        if casts:
            self.con.execute(
                f"CREATE MACRO smart_llm(prompt, {_OPTIONS}) AS __tone(prompt::VARCHAR)"
            )
            self.con.execute(f"CREATE MACRO smart_llm(tbl, col, {_OPTIONS}) AS TABLE {_TABLE_FORM}")
        self.con.execute(tables)

    def _say(self, prompt: str | None) -> str | None:
        if prompt is not None:
            self.asked.add(prompt)
        return None if prompt is None else tone(prompt)


@dataclass
class Pair:
    """A session and plain DuckDB over the same tables."""

    setup: str = ""
    engine: RecordingEngine = field(default_factory=RecordingEngine)

    def __post_init__(self) -> None:
        self.session: Connection = connect(engine=self.engine)
        self._plain = Plain(TABLES, casts=True)
        self.plain, self.wanted = self._plain.con, self._plain.asked
        self.session.execute(TABLES)
        for con in (self.session, self.plain):
            con.execute(self.setup)

    def close(self) -> None:
        self.session.close()
        self.plain.close()

    def compare(self, text: str, plain: str | None = None) -> None:
        """Run both and compare names, types and rows as multisets; then see what was asked.

        Args:
            text: what the session runs.
            plain: what DuckDB alone runs, where that differs.
        """
        self.wanted.clear()
        self.engine.asked.clear()
        assert _ran(self.session, text) == _ran(self.plain, plain or text)

    @property
    def asked(self) -> set[str]:
        """Distinct prompts that the session asked last."""
        return {prompt for _, weights in self.engine.asked for prompt in weights}

    def inputs(self, query: str) -> set[str]:
        """Distinct inputs as a query over the tables tells them."""
        return {row[0] for row in self.plain.execute(query).fetchall() if row[0] is not None}


def _ran(
    con: Connection | duckdb.DuckDBPyConnection, text: str
) -> tuple[list[tuple[str, str]], Counter[str]]:
    result = con.execute(text)
    columns = [(str(name), str(kind)) for name, kind, *_ in result.description or []]
    return columns, Counter(map(repr, result.fetchall()))
