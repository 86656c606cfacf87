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


@dataclass
class Pair:
    """Both connections over the same tables."""

    setup: str = ""
    engine: RecordingEngine = field(default_factory=RecordingEngine)
    wanted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.session: Connection = connect(engine=self.engine)
        self.plain = duckdb.connect(config={"threads": 1})
        self.plain.create_function(
            "__tone", self._say, ["VARCHAR"], "VARCHAR", null_handling=FunctionNullHandling.SPECIAL
        )
        self.plain.execute(f"CREATE MACRO smart_llm(prompt, {_OPTIONS}) AS __tone(prompt::VARCHAR)")
        self.plain.execute(f"CREATE MACRO smart_llm(tbl, col, {_OPTIONS}) AS TABLE {_TABLE_FORM}")
        for con in (self.session, self.plain):
            con.execute(TABLES)
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

    def _say(self, prompt: str | None) -> str | None:
        if prompt is not None:
            self.wanted.add(prompt)
        return None if prompt is None else tone(prompt)


def _ran(
    con: Connection | duckdb.DuckDBPyConnection, text: str
) -> tuple[list[tuple[str, str]], Counter[str]]:
    result = con.execute(text)
    columns = [(str(name), str(kind)) for name, kind, *_ in result.description or []]
    return columns, Counter(map(repr, result.fetchall()))
