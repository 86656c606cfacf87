"""Typed calls in every position: the same rows, names and types as plain functions of DuckDB."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from smartsql.errors import ParameterError
from smartsql.sql.protocol import Call
from smartsql.sql.session import Connection
from smartsql.types import IntArray
from tests.sql.corpus import SETUP
from tests.sql.doubles import Answered, RecordingEngine, tone

S = '{"n":"INTEGER","c":"VARCHAR","l":[{"d":"DATE"}],"p":"DECIMAL(5,2)"}'
"""What the double extracts."""


def _hash(*texts: str) -> str:
    return hashlib.md5("".join(texts).encode()).hexdigest()


def pure(call: Call, prompt: str) -> str:
    """What the double says; `ORACLE` says the same in SQL."""
    options = json.loads(call.options) if call.options else {}
    if call.kind == "filter":
        return "true" if _hash(options["question"], prompt)[0] < "8" else "false"
    if call.kind == "classify":
        labels = options["labels"]
        said = options["instruction"] or ""
        return str(labels[int(_hash(said, prompt)[:4], 16) % len(labels)])
    if call.kind == "extract":
        day = f"2024-01-{1 + len(prompt) % 28:02}"
        found = {"n": len(prompt), "c": tone(prompt), "l": [{"d": day}], "p": "1.50"}
        return json.dumps(found)
    return tone(prompt)


ORACLE = """
CREATE MACRO smart_llm(prompt, delta := 0.1, gamma := 0.95, task := NULL, per := NULL, site := 0) AS
    substr(md5(prompt::VARCHAR), 1, 1);
CREATE MACRO smart_filter(input, question, delta := 0.1, gamma := 0.95, per := NULL, site := 0) AS
    substr(md5(question || input::VARCHAR), 1, 1) < '8';
CREATE MACRO smart_classify(input, labels, delta := 0.1, gamma := 0.95, instruction := NULL,
    per := NULL, site := 0) AS
    (labels::VARCHAR[])[1 + ('0x' || substr(md5(coalesce(instruction, '') || input::VARCHAR), 1, 4))
        ::INTEGER % len(labels)];
CREATE MACRO smart_extract(input, structure, delta := 0.1, gamma := 0.95, instruction := NULL,
    per := NULL, site := 0) AS
    json_transform_strict(CASE WHEN input IS NOT NULL THEN json_object(
        'n', length(input::VARCHAR), 'c', substr(md5(input::VARCHAR), 1, 1),
        'l', [{'d': strftime(DATE '2024-01-01' + (length(input::VARCHAR) % 28)::INTEGER,
            '%Y-%m-%d')}],
        'p', '1.50') END, structure);
"""


@dataclass
class TypedEngine(RecordingEngine):
    """Answers typed calls by a pure function of call and prompt."""

    def answer(self, call: Call, prompts: pa.Array, weights: IntArray) -> Answered:
        plain = RecordingEngine.answer(self, call, prompts, weights)
        said = [pure(call, prompt) for prompt in prompts.to_pylist()]
        return Answered(
            pa.array(said, pa.string()),
            plain.model,
            plain.source,
            plain.confidence,
            plain.cost_usd,
            pa.nulls(len(said), pa.string()),
        )


@pytest.fixture
def engine() -> TypedEngine:
    return TypedEngine()


@pytest.fixture
def oracle() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute(SETUP + ORACLE)
        yield connection


SHORT = {
    "F": "smart_filter(\\1, 'Is it about a film?')",
    "C": "smart_classify(\\1, ['red', 'green', 'blue'])",
    "X": f"smart_extract(\\1, '{S}')",
}


def calls(text: str) -> str:
    """A statement in which F(r), C(n) and X(..) are written out, inner ones first."""
    call = r"\b[FCX]\("
    innermost = re.compile(rf"{call}((?:(?!{call})(?:[^()]|\([^()]*\)))*)\)")
    while match := innermost.search(text):
        written = match.expand(SHORT[match[0][0]]).replace("(", "\x01").replace(")", "\x02")
        text = text[: match.start()] + written + text[match.end() :]
    return text.replace("\x01", "(").replace("\x02", ")")


NATIVE = [
    "SELECT F(r) FROM t",
    "SELECT i, C(n) AS c, F(n) FROM t",
    "SELECT X(r) AS x, i FROM t WHERE k = 3",
    "SELECT X(n).l[1].d AS d, X(n).p + 1 AS p FROM t WHERE i < 50",
    "SELECT count(*) FROM (SELECT F(r) AS f FROM t) WHERE f",
    "SELECT i FROM t QUALIFY F(r)",
    "SELECT i, C(r) FROM t QUALIFY C(r) <> 'red' ORDER BY C(r), i",
    "SELECT CASE WHEN F(r) THEN 1 ELSE 0 END AS z FROM t",
    "SELECT k, F(min(r)) AS f FROM t GROUP BY k",
    "WITH q AS (SELECT C(r) AS c FROM t) SELECT c, count(*) FROM q GROUP BY c",
    "SELECT DISTINCT C(r) FROM t",
    "SELECT F(i) FROM t WHERE i < 20",
    "SELECT smart_filter(r, question := 'other', delta := 0.2, gamma := 0.9) FROM t",
    "SELECT smart_classify(r, ['a', 'b'], instruction := 'Think of it.') FROM t",
    "SELECT smart_classify(r, labels := ['a', 'b'], per := k) FROM t",
    "SELECT F(r) FROM empty",
    "SELECT X(r) FROM empty",
]
MOVED = [
    "SELECT count(*) FROM t WHERE F(r)",
    "SELECT i FROM t WHERE F(r) AND k = 3",
    "SELECT i FROM t WHERE NOT F(n) OR k = 3",
    "SELECT i, r FROM t WHERE C(r) IN ('red', 'blue') AND F(r)",
    "SELECT C(r), count(*) FROM t GROUP BY C(r)",
    "SELECT C(r) AS c, count(*) FROM t GROUP BY ALL HAVING count(*) > 10",
    "SELECT k, count(*) FILTER (WHERE F(r)) FROM t GROUP BY k",
    "SELECT sum(X(r).n), max(X(r).l[1].d) FROM t",
    "SELECT k FROM t GROUP BY k HAVING F(min(r))",
    "SELECT t.i, u.i FROM t JOIN u ON t.i = u.i AND F(t.r)",
    "SELECT i FROM t WHERE F(C(r))",
    "SELECT C(X(r)) FROM t",
    "SELECT i FROM t WHERE i IN (SELECT i FROM u WHERE F(r))",
    "SELECT i, rank() OVER (ORDER BY C(r), i) FROM t",
    "SELECT F(r) FROM t UNION ALL SELECT F(r) FROM u",
    "SELECT X(r).n AS n, count(*) FROM t WHERE X(r).n > 8 GROUP BY 1",
    "SELECT i FROM t ORDER BY F(r), i LIMIT 7",
    "SELECT F(r), C(r) FROM (SELECT r, i FROM t ORDER BY i LIMIT 5)",
]


def rows_of(con: Any, text: str) -> tuple[list[str], list[str], Counter[str]]:
    """Names, types and rows (as texts, in no order) of a statement."""
    relation = con.sql(text)
    names, types = relation.columns, [str(kind) for kind in relation.types]
    return names, types, Counter(map(repr, relation.fetchall()))


@pytest.mark.parametrize("text", [*NATIVE, *MOVED])
def test_a_statement_gives_what_plain_functions_give(
    con: Connection, oracle: duckdb.DuckDBPyConnection, text: str
) -> None:
    plain = calls(text).replace("QUALIFY", "WHERE")
    assert rows_of(con, calls(text)) == rows_of(oracle, plain)


@pytest.mark.parametrize("text", NATIVE)
def test_a_plain_connection_gives_the_same_where_windows_may_stand(
    bare: duckdb.DuckDBPyConnection, oracle: duckdb.DuckDBPyConnection, text: str
) -> None:
    plain = calls(text).replace("QUALIFY", "WHERE")
    assert rows_of(bare, calls(text)) == rows_of(oracle, plain)


def test_writes_keep_the_types(con: Connection) -> None:
    con.execute(calls("CREATE TABLE z AS SELECT F(r) AS f, C(r) AS c, X(r) AS x FROM t"))
    found = con.execute("SELECT column_type FROM (DESCRIBE z)").fetchall()
    struct = "STRUCT(n INTEGER, c VARCHAR, l STRUCT(d DATE)[], p DECIMAL(5,2))"
    assert [kind for (kind,) in found] == ["BOOLEAN", "VARCHAR", struct]
    con.execute(calls("UPDATE s SET y = C(x) WHERE F(x)"))
    con.execute(calls("CREATE VIEW v AS SELECT id, F(x) AS f FROM s"))
    said = con.execute("SELECT count(*) FROM s WHERE y IS NOT NULL").fetchone()
    assert said == con.execute("SELECT count(*) FROM v WHERE f").fetchone()


def test_each_distinct_input_is_asked_once_and_null_never(
    con: Connection, engine: TypedEngine
) -> None:
    con.execute(calls("SELECT F(n), i FROM t WHERE k = 3 AND F(n)")).fetchall()
    assert {call.kind for call, _ in engine.asked} == {"filter"}
    wanted = {f"text {i % 23}" for i in range(3000) if i % 7 == 3 and i % 11}
    assert set(engine.prompts) == wanted


def test_calls_that_ask_something_else_are_sets_of_their_own(
    con: Connection, engine: TypedEngine
) -> None:
    con.execute(
        "SELECT smart_filter(r, 'one'), smart_filter(r, 'two'), smart_classify(r, ['one', 'two']), "
        "smart_llm(r) FROM t"
    ).fetchall()
    asked = {(call.kind, call.options) for call, _ in engine.asked}
    assert len(engine.asked) == len(asked) == 4
    assert len({call.statement for call, _ in engine.asked}) == 1


def test_arguments_may_be_parameters(con: Connection, engine: TypedEngine) -> None:
    query = "SELECT smart_filter(r, $1, delta := $2), smart_classify(r, $3) FROM t WHERE i < $4"
    con.execute(query, ["Is it?", 0.2, ["a", "b"], 5]).fetchall()
    calls_made = [call for call, _ in engine.asked]
    assert {json.loads(c.options).get("question") for c in calls_made} == {"Is it?", None}
    assert {c.delta for c in calls_made} == {0.1, 0.2}


def test_columns_may_have_the_names_of_parameters(con: Connection) -> None:
    con.execute("CREATE TABLE p AS SELECT r AS question, r AS input, r AS labels FROM t")
    query = (
        "SELECT smart_filter(question, 'q') = smart_filter(input, 'q'), "
        "smart_classify(labels, ['a', 'b']) = smart_classify(input, ['a', 'b']) FROM p"
    )
    assert set(con.execute(query).fetchall()) == {(True, True)}


BAD = [
    ("smart_filter(r, '')", "question of smart_filter is empty"),
    ("smart_filter(r, NULL)", "question of smart_filter is NULL"),
    ("smart_filter(r, 'x', 1.5)", "delta is 1.5"),
    ("smart_filter(r, 'x', gamma := 1)", "gamma is 1"),
    ("smart_classify(r, ['a'])", "labels of smart_classify are 1"),
    ("smart_classify(r, ['a', 'A!'])", "must differ"),
    ("smart_classify(r, ['a', NULL])", "not all texts"),
    ('smart_extract(r, \'{"a": "MONEY"}\')', "unknown type 'MONEY'"),
    ("smart_extract(r, 'price')", "not JSON"),
    ("smart_extract(r, '[\"INTEGER\"]')", "not a JSON object"),
]


@pytest.mark.parametrize(("call", "said"), BAD)
@pytest.mark.parametrize("table", ["t", "empty"])
def test_constants_are_checked_before_anything_is_asked(
    con: Connection, engine: TypedEngine, call: str, said: str, table: str
) -> None:
    with pytest.raises(ParameterError, match=said):
        con.execute(f"SELECT {call} FROM {table}")
    assert not engine.asked


VARYING = [
    ("smart_filter(r, 'about ' || k)", "question"),
    ("smart_filter(r, r)", "question"),
    ("smart_classify(r, ['a', k::VARCHAR])", "labels"),
    ("smart_classify(r, ['a', 'b'], instruction := r)", "instruction"),
]


@pytest.mark.parametrize(("call", "name"), VARYING)
def test_constants_that_vary_are_refused(
    con: Connection,
    bare: duckdb.DuckDBPyConnection,
    engine: TypedEngine,
    call: str,
    name: str,
) -> None:
    with pytest.raises(ParameterError, match=f"{name} of smart_"):
        con.execute(f"SELECT {call} FROM t").fetchall()
    with pytest.raises(duckdb.Error, match=f"{name} of smart_.* must be the same for all rows"):
        bare.execute(f"SELECT {call} FROM t").fetchall()
    assert not engine.asked


def test_explain_asks_nothing_and_names_the_function(con: Connection, engine: TypedEngine) -> None:
    rows = con.execute(calls("EXPLAIN SELECT F(r) FROM t WHERE k = 1")).fetchall()
    assert not engine.asked and engine.previewed[0][0].function == "smart_filter"
    assert any(key == "smart_call" for key, _ in rows)


def test_titles_tell_calls_of_one_function_apart(con: Connection, engine: TypedEngine) -> None:
    con.execute(
        "SELECT smart_filter(r, 'one'), smart_classify(r, ['a', 'b'], per := k) FROM t WHERE k = 2"
    ).fetchall()
    assert sorted(call.title for call, _ in engine.asked) == [
        "smart_classify(r, ['a', 'b']) per k = '2'",
        "smart_filter(r, 'one')",
    ]
