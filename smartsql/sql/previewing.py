"""All calls of a statement, and the rows that each may be asked about, while nothing is asked.

A statement is run with its calls answered by NULL. That shows the rows of every call whose rows do
not depend on answers. Where a statement has several calls it is run again, without the conditions
that hold for no row while answers are missing (`smartsql.sql.widening`): what a call sees only
then, or more of then, is an upper bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import duckdb

from smartsql.sql.arguments import SEPARATOR
from smartsql.sql.barrier import Barrier
from smartsql.sql.sightings import Sighting, Watch
from smartsql.sql.widening import depends_on_answers, widened

_SITE = "__smart_collect"
"""Stands once for each call in DuckDB's account of a plan."""

Run = Callable[[str], Watch]


def unreckoned(count: int) -> str:
    """What a preview says of calls that it could not see."""
    calls = "1 further call is" if count == 1 else f"{count} further calls are"
    return (
        f"{calls} not reckoned: the rows depend on answers in a way that cannot be followed "
        f"beforehand. The spend may be higher than shown; set budget_usd."
    )


def reckoned(
    con: duckdb.DuckDBPyConnection,
    barrier: Barrier,
    connection: int,
    planned: str,
    parameters: object = None,
) -> list[Any]:
    """A preview from the engine for each call of a planned statement, and a text for what is left.

    Args:
        con: runs the statement up to its calls.
        connection: its number.
        planned: one statement that only reads, as DuckDB runs it.
    """

    def run(text: str) -> Watch:
        with barrier.previewing(connection) as watch:
            con.execute(text, parameters)
            con.complete()
        return watch

    seen, unseen = run(planned).sightings(), 0
    sites = call_sites(con, planned, parameters)
    if sites > 1:
        seen, whole = _bounded(seen, planned, con, run)
        # a call that is not seen now has no rows at all, unless some condition is left
        unseen = 0 if whole else sites - len(seen)
    return previewed(barrier, seen, unseen)


def previewed(barrier: Barrier, seen: list[Sighting], unseen: int) -> list[Any]:
    """The engine's previews of what was seen, and a text about as many calls as were not."""
    previews, begun = [], set()
    for one in seen:
        if not len(one.prompts):
            continue
        # a further set of the same call is asked only where the answers to the first do not do
        again = (one.site, one.call) in begun
        begun.add((one.site, one.call))
        call = replace(one.call, at_most=one.call.at_most or again)
        previews.append(barrier.engine.preview(call, one.prompts, one.weights))
    return [*previews, unreckoned(unseen)] if unseen > 0 else previews


def call_sites(con: duckdb.DuckDBPyConnection, planned: str, parameters: object = None) -> int:
    """Calls in the plan of a statement, those of its views and macros included."""
    try:
        rows = con.execute(f"EXPLAIN (FORMAT json) {planned}", parameters).fetchall()
    except duckdb.ParserException:
        return 0  # EXPLAIN of an EXPLAIN: nothing runs
    return sum(str(plan).count(_SITE) for _, plan in rows)


def _bounded(
    seen: list[Sighting], planned: str, con: duckdb.DuckDBPyConnection, run: Run
) -> tuple[list[Sighting], bool]:
    """What was seen, with upper bounds where rows or prompts depend on answers.

    Returns:
        The sightings, and whether no condition on answers was in the way of others.
    """
    wide = widened(planned, con)
    names = wide.names if wide else frozenset()
    whole = wide is not None and wide.whole
    more: list[Sighting] = []
    if wide is not None and wide.query != planned:
        try:
            more = run(wide.query).sightings()
        except duckdb.Error:  # a condition kept away what an expression cannot take
            whole = False
    found = []
    for site in dict.fromkeys(one.site for one in [*seen, *more]):
        unknown = depends_on_answers(site[0].split(SEPARATOR)[0], names)
        known = [one for one in seen if one.site == site]
        bounds = [one for one in more if one.site == site] or known
        exact = known and all(one.sealed for one in known) and not unknown
        if exact and (bounds is known or _alike(known, bounds)):
            found += known
            continue
        most = max(known, bounds, key=lambda some: sum(one.rows for one in some))
        found += [one.at_most(unknown=unknown) for one in most]
    return found, whole


def _alike(known: list[Sighting], bounds: list[Sighting]) -> bool:
    """Whether the conditions that depend on answers made no difference."""
    return len(known) == len(bounds) and all(
        one.same_rows(other) for one, other in zip(known, bounds, strict=True)
    )
