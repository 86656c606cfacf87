"""MERGE with calls outside its source: they become columns of the source.

MERGE INTO s USING u q ON s.id = q.i WHEN NOT MATCHED THEN INSERT VALUES (q.i, smart_llm(q.r))
MERGE INTO s USING (SELECT * EXCLUDE (__need_1), smart_llm(CASE WHEN __need_1 THEN q.r END) AS
    __call_1 FROM (SELECT *, NOT EXISTS (SELECT 1 FROM s WHERE s.id = q.i) AS __need_1 FROM u q)
    AS q) AS q ON s.id = q.i WHEN NOT MATCHED THEN INSERT VALUES (q.i, q.__call_1)

A call of an action sees the rows that may come to its action: of the others the prompt is NULL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from smartsql.errors import UnplannableCallError
from smartsql.sql.normalise.calls.clauses import is_call
from smartsql.sql.normalise.dml.changes import Change
from smartsql.sql.normalise.dml.inserts import Columns
from smartsql.sql.normalise.syntax.dialect import parse, sql
from smartsql.sql.normalise.syntax.proof import same_query
from smartsql.sql.normalise.syntax.trees import every
from smartsql.sql.normalise.text.shapes import Statement
from smartsql.sql.normalise.text.words import Words

_INTO_SOURCE = (
    "Join the target into the source and call there: USING (SELECT u.*, smart_llm(t.x) AS answer "
    "FROM u LEFT JOIN t ON t.id = u.id) q, then use q.answer."
)


@dataclass(frozen=True, slots=True)
class _When:
    """One WHEN clause: its words, and which rows of the source come to it.

    Attributes:
        matched: True, False, or None for rows of the target that have no source.
        then: place of its THEN.
    """

    first: int
    last: int
    matched: bool | None
    then: int


@dataclass
class _Source:
    """The source while columns are added to it.

    Attributes:
        text: as it stands behind FROM.
        name: by which its columns are called.
        target: the target as it stands behind FROM.
        target_name: by which its columns are called.
        texts: what is written instead of the words from the first to the last place.
    """

    text: str
    name: str
    target: str
    target_name: str
    columns: frozenset[str] | None
    target_columns: frozenset[str] | None
    texts: dict[tuple[int, int], str] = field(default_factory=dict)

    def add(self, columns: dict[str, str], *, without: list[str] | None = None) -> None:
        """Put columns beside those there are."""
        star = f"* EXCLUDE ({', '.join(without)})" if without else "*"
        added = "".join(f", {text} AS {name}" for name, text in columns.items())
        self.text = f"(SELECT {star}{added} FROM {self.text}) AS {self.name}"

    def replaced(self, words: Words, first: int, last: int) -> str:
        """The text of some words with columns in place of calls."""
        pieces: list[str] = []
        begun = words.tokens[first].start
        for place, text in sorted(self.texts.items()):
            if first <= place[0] and place[1] <= last:
                pieces += [words.text[begun : words.tokens[place[0]].start], text]
                begun = words.tokens[place[1]].end + 1
        return "".join([*pieces, words.text[begun : words.tokens[last].end + 1]])


def merged(statement: Statement, columns_of: Columns) -> Change | None:
    """MERGE as a change; None if it cannot be read.

    Raises:
        UnplannableCallError: a call that needs columns of the target, or in RETURNING.
    """
    words = statement.words
    using = words.find(("USING",), 0)
    on = None if using is None else words.find(("ON", "USING"), using + 1)
    whens = _whens(words)
    if using is None or on is None or not whens:
        return None
    source = _source(statement, using, on, columns_of)
    stop = whens[-1].last + 1
    for call in words.calls(stop):
        raise UnplannableCallError(
            words.slice(*call), "RETURNING", "Select the changed rows afterwards."
        )
    sites = [*_sites(words, on, whens[0].first), *_sites(words, whens[0].first, stop)]
    if sites:
        _add_calls(source, words, on, whens)
    native = not sites
    planned_source = f"{statement.with_}SELECT * FROM {source.text}"

    def write(planned: str) -> str:
        head = words.slice(0, using)
        rest = source.replaced(words, on, len(words) - 1)
        return f"{head} ({planned}) AS {source.name} {rest}"

    return Change(planned_source, write, native)


def _source(statement: Statement, using: int, on: int, columns_of: Columns) -> _Source:
    words = statement.words
    text, last = words.slice(using + 1, on - 1), on - 1
    name = words.slice(last, last)
    if words.is_any(last, ")"):
        opened = next(
            at
            for at in range(using + 1, last)
            if words.is_any(at, "(") and words.closing(at) == last
        )
        name = words.slice(opened - 1, opened - 1)
        if opened == using + 1:
            name, text = "__source", f"{text} AS __source"
    target = words.slice(2 if words.is_any(1, "INTO") else 1, using - 1)
    return _Source(
        text,
        name,
        target,
        words.slice(using - 1, using - 1),
        _lower(columns_of(f"{statement.with_}SELECT * FROM {text}")),
        _lower(columns_of(f"SELECT * FROM {target}")),
    )


def _lower(names: Sequence[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(name.lower() for name in names)


def _whens(words: Words) -> list[_When]:
    """The WHEN clauses; a WHEN of CASE is none."""
    starts = [
        at
        for at in range(len(words))
        if words.are(at, "WHEN", "MATCHED") or words.are(at, "WHEN", "NOT", "MATCHED")
    ]
    end = words.find(("RETURNING",), starts[-1]) if starts else None
    stops = [*starts[1:], len(words) if end is None else end]
    whens = []
    for first, stop in zip(starts, stops, strict=True):
        matched: bool | None = words.is_any(first + 1, "MATCHED")
        if words.are(first + 3, "BY", "SOURCE"):
            matched = None
        whens.append(_When(first, stop - 1, matched, _then(words, first, stop)))
    return whens


def _then(words: Words, first: int, stop: int) -> int:
    """The THEN of a WHEN clause, behind those of CASE in its condition."""
    depth = 0
    for at in range(first, stop):
        depth += words.is_any(at, "CASE") - words.is_any(at, "END")
        if depth == 0 and words.is_any(at, "THEN"):
            return at
    return stop - 1


def _sites(words: Words, start: int, stop: int) -> list[tuple[int, int]]:
    """Calls, and the whole subqueries in which calls stand, as first and last word.

    Raises:
        UnplannableCallError: a subquery that is no value, such as that of IN.
    """
    found = []
    at = start
    while at < stop:
        is_query = words.is_any(at, "(") and words.begins_query(at)
        end = words.closing(at) if is_query else at
        inside = words.calls(at, end + 1) if is_query else words.calls(at, at + 1)
        if inside:
            end = max(end, inside[0][1])
            if is_query and words.is_any(at - 1, "IN", "ANY", "ALL", "SOME"):
                raise UnplannableCallError(
                    words.slice(*inside[0]),
                    f"a subquery of {words.slice(at - 1, at - 1)} in MERGE",
                    "Compare in the source: USING (SELECT *, x IN (SELECT ..) AS found FROM ..) "
                    "q, then use q.found.",
                    "the rows that it compares with are no column of the source",
                )
            first = at - 1 if is_query and words.is_any(at - 1, "EXISTS") else at
            found.append((first, end))
        at = end + 1
    return found


def _add_calls(source: _Source, words: Words, on: int, whens: list[_When]) -> None:
    """Columns for all calls: those of ON first, since whether rows match depends on them."""
    _refuse_stars(words, whens)
    names: dict[str, str] = {}
    for place in _sites(words, on, whens[0].first):
        names[_named(source, words, place, len(names), "ON of MERGE")] = words.slice(*place)
    if names:
        source.add(names)
    condition = _condition(source, words, on, whens[0].first)
    needs: dict[str, str] = {}
    calls: dict[str, str] = {}
    for when in whens:
        for place in _sites(words, when.first, when.last + 1):
            text = words.slice(*place)
            clause = "WHEN of MERGE"
            if when.matched is None:
                raise UnplannableCallError(text, "WHEN NOT MATCHED BY SOURCE", _update_first())
            column = _named(source, words, place, len(names) + len(calls), clause)
            matched = f"EXISTS (SELECT 1 FROM {source.target} WHERE {condition})"
            need = matched if when.matched else f"NOT {matched}"
            calls[column] = text
            if not words.is_any(place[0], "(", "EXISTS"):
                flag = next((n for n, t in needs.items() if t == need), f"__need_{len(needs) + 1}")
                needs[flag] = need
                calls[column] = _guarded(text, flag)
    if needs:
        source.add(needs)
    if calls:
        source.add(calls, without=list(needs))


def _update_first() -> str:
    return "Change these rows by an UPDATE or DELETE of their own, which may call it."


def _condition(source: _Source, words: Words, on: int, stop: int) -> str:
    """The condition on which rows match, over the source with its columns."""
    if words.is_any(on, "USING"):
        columns = [words.slice(*item) for item in words.listed(on + 2, words.closing(on + 1))]
        return " AND ".join(f"{source.target_name}.{c} = {source.name}.{c}" for c in columns)
    return f"({source.replaced(words, on + 1, stop - 1)})"


def _named(source: _Source, words: Words, place: tuple[int, int], number: int, clause: str) -> str:
    """A name for the column of a call, noted for its place; refused if the source lacks columns."""
    text = words.slice(*place)
    tree = parse(f"SELECT {text}")
    columns = every(tree, exp.Column) if tree is not None else None
    if columns is None or any(
        not _is_of_source(source, column, inside=words.is_any(place[0], "(", "EXISTS"))
        for column in columns
    ):
        raise UnplannableCallError(text, f"{clause} over columns of the target", _INTO_SOURCE)
    name = f"__call_{number + 1}"
    source.texts[place] = f"{source.name}.{name}"
    return name


def _is_of_source(source: _Source, column: exp.Column, *, inside: bool) -> bool:
    """Whether a column can be read from the source; in a subquery it may be one of its own."""
    table, name = column.table.lower(), column.name.lower()
    if table:
        same = table == source.name.strip('"').lower()
        return same or (inside and table != source.target_name.strip('"').lower())
    if inside:
        return True
    if source.columns is None or source.target_columns is None:
        return False
    return name in source.columns and name not in source.target_columns


def _guarded(call: str, flag: str) -> str:
    """A call, and the calls in it, whose prompts are NULL where their answers are not needed."""
    tree = parse(f"SELECT {call}")
    if tree is None or not same_query(f"SELECT {call}", sql(tree)):
        return call  # asked for all rows of the source
    for node in every(tree, exp.Anonymous):
        if is_call(node):
            prompt = node.expressions[0]
            guarded = exp.Case().when(exp.column(flag), prompt.copy())
            prompt.replace(guarded)
    return sql(tree).removeprefix("SELECT ")


def _refuse_stars(words: Words, whens: list[_When]) -> None:
    """Refuse actions that write all columns of the source: it gets more of them.

    Raises:
        UnplannableCallError: for the first call, with the action.
    """
    for when in whens:
        at = when.then + 1
        stars = (
            words.is_any(at, "UPDATE")
            and (not words.is_any(at + 1, "SET") or words.is_any(at + 2, "*"))
        ) or (words.is_any(at, "INSERT") and words.find(("VALUES",), at, when.last + 1) is None)
        if stars:
            raise UnplannableCallError(
                words.slice(*words.calls()[0]),
                f"a MERGE with {words.slice(at, when.last)} of all columns",
                "Call it in the source, USING (SELECT *, smart_llm(..) AS answer FROM ..) q, or "
                "name the columns: UPDATE SET a = q.a, INSERT (a) VALUES (q.a).",
            )
