"""Reports, previews and errors name calls as the user wrote them, however they were moved."""

from __future__ import annotations

import pytest

from smartsql.errors import ParameterError
from smartsql.sql.session import Connection
from smartsql.sql.wording import Wording
from tests.sql.doubles import RecordingEngine

WRITTEN = {
    "SELECT smart_llm(r || '!') FROM u": ["r || '!'"],
    "SELECT CASE WHEN i < 3 THEN smart_llm(r || '?') END FROM u": ["r || '?'"],
    "SELECT count(*) FROM u WHERE i = 1 OR smart_llm(r::VARCHAR || i) > '5'": ["r::VARCHAR || i"],
    "SELECT coalesce(nullif(r, 'other 1'), smart_llm(u.r)) FROM u": ["u.r"],
    "SELECT smart_llm(smart_llm(r) || i) FROM u": ["r", "smart_llm(r) || i"],
    "SELECT smart_llm(max(r)) FROM u GROUP BY i": ["max(r)"],
    "SELECT count(*) FILTER (i = 1 AND smart_llm(r) > '5') FROM u": ["r"],
    "SELECT smart_llm(CASE WHEN i = 1 THEN r END) FROM u": ["CASE WHEN i = 1 THEN r END"],
    "SELECT smart_llm(prompt := concat(r, ' ', i)) FROM u": ["concat(r, ' ', i)"],
    "MERGE INTO s USING u q ON s.id = q.i WHEN NOT MATCHED THEN "
    "INSERT VALUES (q.i, smart_llm(q.r), 'x')": ["q.r"],
}


@pytest.mark.parametrize("query", list(WRITTEN))
def test_a_call_is_named_as_it_was_written(
    con: Connection, engine: RecordingEngine, query: str
) -> None:
    con.execute(query)
    con.complete()
    assert list(dict.fromkeys(call.text for call, _ in engine.asked)) == WRITTEN[query]


def test_a_preview_and_an_error_name_it_so_too(con: Connection, engine: RecordingEngine) -> None:
    query = "SELECT CASE WHEN i < 3 THEN smart_llm(r || '?') END FROM u"
    con.preview(query)
    assert [call.text for call, _ in engine.previewed] == ["r || '?'"]
    with pytest.raises(ParameterError, match=r"delta of smart_llm\(r \|\| '\?'\)"):
        con.execute(query.replace("'?')", "'?', i / 100)")).fetchall()


def test_a_relation_that_is_read_later_names_its_own_call(
    con: Connection, engine: RecordingEngine
) -> None:
    relation = con.sql("SELECT CASE WHEN i < 3 THEN smart_llm(r || '1') END FROM u")
    con.execute("SELECT smart_llm(r || '2') FROM u").fetchall()
    relation.fetchall()
    assert [call.text for call, _ in engine.asked] == ["r || '2'", "r || '1'"]


def test_where_nothing_is_known_the_text_stays_what_duckdb_says() -> None:
    assert Wording().shown("(a || CAST(b AS VARCHAR))") == "a || CAST(b AS VARCHAR)"
    guarded = "CASE  WHEN ((k = 1)) THEN (a) ELSE CAST(NULL AS VARCHAR) END"
    assert Wording().shown(guarded) == guarded
    other = Wording()
    other.note("SELECT smart_llm(b), smart_llm(c) FROM t")
    assert other.shown(guarded) == "a"
    assert other.shown("__ahead_1") == ".."


def test_a_constant_prompt_is_previewed_once(con: Connection, engine: RecordingEngine) -> None:
    for query, per in {
        "SELECT smart_llm('a')": None,
        "SELECT smart_llm('a', per := 'x')": "'x'",
        "SELECT smart_filter('a', 'Is it?')": None,
        "SELECT smart_filter('a', 'Is it?', per := 1)": "1",
    }.items():
        engine.previewed.clear()
        assert len(con.preview(query)) == 1, query
        assert [call.per for call, _ in engine.previewed] == [per], query


@pytest.mark.parametrize("structure", ["nonsense", '{"a": "NOTYPE"}', 3])
def test_a_wrong_structure_as_a_parameter_is_refused_with_what_to_write(
    con: Connection, engine: RecordingEngine, structure: object
) -> None:
    with pytest.raises(ParameterError, match=r"structure of smart_extract.*Write names and types"):
        con.execute("SELECT smart_extract(r, ?) FROM u", [structure]).fetchall()
    assert engine.asked == []


@pytest.mark.parametrize("labels", ["a,b", {"a": 1}])
def test_wrong_labels_as_a_parameter_are_refused_with_what_to_write(
    con: Connection, engine: RecordingEngine, labels: object
) -> None:
    with pytest.raises(ParameterError, match=r"labels of smart_classify.*such as \['positive'"):
        con.execute("SELECT smart_classify(r, ?) FROM u", [labels]).fetchall()
    with pytest.raises(ParameterError, match=r"not all texts in a list; list the answers"):
        con.execute("SELECT smart_classify(r, 'a') FROM u").fetchall()
    assert engine.asked == []
