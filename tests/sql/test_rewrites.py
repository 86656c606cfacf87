"""Rewrites as pairs of SQL, so that a reviewer reads only SQL."""

from __future__ import annotations

import pytest

from smartsql.sql.normalise import normalise
from smartsql.sql.session import Connection
from tests.sql.corpus import pairs


@pytest.mark.parametrize(("what", "before", "after"), pairs("rewrites.sql"))
def test_a_statement_becomes(what: str, before: str, after: str, con: Connection) -> None:
    assert normalise(before, con._con) == after, what
    if not after.startswith("UPDATE"):  # of which the rows of a join are found anew
        assert normalise(after, con._con) == after, "a rewritten statement is left alone"
