"""Tables and statements of the SQL tests."""

from __future__ import annotations

from pathlib import Path

SETUP = """
CREATE TABLE t AS SELECT i, i % 7 AS k, i % 5 AS g, 'review ' || (i % 40) AS r,
    CASE WHEN i % 11 = 0 THEN NULL ELSE 'text ' || (i % 23) END AS n FROM range(3000) x(i);
CREATE TABLE u AS SELECT i, i % 3 AS b, 'other ' || (i % 30) AS r, 'w' || i AS w
    FROM range(200) x(i);
CREATE TABLE s(id INTEGER, x VARCHAR, y VARCHAR);
INSERT INTO s SELECT i, 'row ' || (i % 9), NULL FROM range(50) z(i);
CREATE TABLE empty(r VARCHAR, i INTEGER);
"""


def statements(name: str) -> list[str]:
    """The statements of a fixture, one a line, without comments and final semicolons."""
    text = (Path(__file__).parent / "fixtures" / name).read_text()
    lines = [line.strip() for line in text.splitlines()]
    return [line.removesuffix(";") for line in lines if line and not line.startswith("--")]


def pairs(name: str) -> list[tuple[str, str, str]]:
    """Description, statement and rewritten statement of a fixture of pairs."""
    text = (Path(__file__).parent / "fixtures" / name).read_text()
    found = []
    for block in text.strip().split("\n\n"):
        comment, before, after = block.splitlines()
        found.append((comment.removeprefix("-- "), before, after))
    return found
