"""Every statement gives what a plain function would give, and asks what is needed, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from smartsql.errors import UnplannableCallError
from smartsql.sql.session import Connection, connect
from tests.sql.comparing import Plain
from tests.sql.doubles import RecordingEngine
from tests.sql.positions import Position, positions

POSITIONS = positions()
WAVE = 64
"""More distinct inputs than the last of several waves asks for in these tables."""
Result = tuple[list[tuple[str, str]], list[str]]


@pytest.fixture(scope="module")
def plains() -> Iterator[dict[tuple[str, bool], Plain]]:
    made: dict[tuple[str, bool], Plain] = {}
    yield made
    for plain in made.values():
        plain.con.close()


@pytest.fixture(scope="module")
def sessions() -> Iterator[dict[str, tuple[RecordingEngine, Connection]]]:
    made: dict[str, tuple[RecordingEngine, Connection]] = {}
    yield made
    for _, session in made.values():
        session.close()


def ran(
    con: Connection | duckdb.DuckDBPyConnection, text: str, parameters: object = None
) -> Result:
    """Columns with their types, and the rows as texts."""
    result = con.execute(text) if parameters is None else con.execute(text, parameters)  # type: ignore[arg-type]
    columns = [(str(column[0]), str(column[1])) for column in result.description or []]
    return columns, [repr(row) for row in result.fetchall()] if columns else []


@pytest.mark.parametrize("position", POSITIONS, ids=lambda position: position.name)
def test_a_call_anywhere_gives_what_a_plain_function_gives(
    position: Position,
    tmp_path: Path,
    plains: dict[tuple[str, bool], Plain],
    sessions: dict[str, tuple[RecordingEngine, Connection]],
) -> None:
    if position.changes:
        engine, session = opened(position.tables)
        plain = Plain(position.tables, casts=position.casts)
    else:
        if position.tables not in sessions:
            sessions[position.tables] = opened(position.tables)
        engine, session = sessions[position.tables]
        key = (position.tables, position.casts)
        if key not in plains:
            plains[key] = Plain(position.tables, casts=position.casts)
        plain = plains[key]
    try:
        compare(position, str(tmp_path), plain, engine, session)
    finally:
        if position.changes:
            plain.con.close()
            session.close()


def opened(tables: str) -> tuple[RecordingEngine, Connection]:
    """A session over the tables, and the double behind it."""
    engine = RecordingEngine()
    session = connect(engine=engine)
    session.execute(tables)
    return engine, session


def compare(
    position: Position, folder: str, plain: Plain, engine: RecordingEngine, session: Connection
) -> None:
    """The statement on both sides."""

    def placed(text: str) -> str:
        return text.replace("{dir}", folder)

    notes = position.notes
    for con in (plain.con, session):
        if "setup" in notes:
            con.execute(placed(notes["setup"]))
    engine.asked.clear()
    plain.asked.clear()
    if "refused" in notes:
        with pytest.raises(UnplannableCallError):
            ran(session, placed(position.text), position.parameters)
        assert engine.asked == []
        return
    needed = (
        {row[0] for row in plain.con.execute(notes["asks"]).fetchall()} if "asks" in notes else None
    )
    plain.asked.clear()
    columns, rows = ran(plain.con, placed(position.plain), position.parameters)
    asked_by_plain = set(plain.asked)
    ours, our_rows = ran(session, placed(position.text), position.parameters)
    asked = {prompt for _, weights in engine.asked for prompt in weights}
    if "any rows" not in notes:
        assert ours == columns
        assert Counter(our_rows) == Counter(rows)
        assert "ordered" not in notes or our_rows == rows
    if "after" in notes:
        after = placed(notes["after"])
        assert Counter(ran(session, after)[1]) == Counter(ran(plain.con, after)[1])
    if "wave" in notes:
        assert needed is not None
        assert len(asked) <= len(needed) + WAVE
    elif needed is not None:
        assert asked == {str(prompt) for prompt in needed}
    elif "any asks" in notes:
        assert len(asked) <= len(asked_by_plain)
    else:
        assert asked <= asked_by_plain


def test_the_corpus_is_as_large_as_it_says() -> None:
    assert len(POSITIONS) >= 500
    assert len({position.name for position in POSITIONS}) == len(POSITIONS)
    assert {f"tpch-{n:02}" for n in range(1, 23)} <= {position.name for position in POSITIONS}
