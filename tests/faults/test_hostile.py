"""Cells that mean no good change their own row at most."""

from __future__ import annotations

import json
import struct
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import smartsql
from smartsql.reports.verify import verify
from tests.faults.cells import BYTES, CELLS
from tests.faults.hostile import (
    BENIGN,
    HOSTILE,
    OBEYED,
    PRICES,
    Spy,
    answered,
    filled,
    opened,
    prompts_of,
    rendered,
    truth,
)
from tests.gateway.server import TestServer


@pytest.fixture
def server() -> Iterator[TestServer]:
    with TestServer(lambda model, prompt: truth(prompt)) as running:
        yield running


def test_the_corpus_is_what_it_says() -> None:
    assert len(HOSTILE) == len(CELLS) > 120
    forms = {unicodedata.normalize("NFKC", cell).strip() for cell in CELLS}
    assert len(forms) < len(CELLS)  # some differ by white space or normal form alone
    assert max(map(len, CELLS)) == 1_000_000 and "" in HOSTILE and "\x00" in HOSTILE


def test_hostile_cells_are_sent_alone_as_they_stand_and_change_no_other_answer(
    server: TestServer, tmp_path: Path
) -> None:
    query = "SELECT cell, smart_llm(cell, 0.1, 0.95, task := 'tone') FROM cells"
    with opened(server, tmp_path) as con:
        alone = answered(filled(con, BENIGN), query)
        server.reset()
        both = answered(filled(con, [*BENIGN, *CELLS]), query)
        report = con.reports[-1]
        assert all(check.holds for check in verify(report.to_dict(), con.engine.store))
    assert alone == {cell: truth(rendered(cell)) for cell in BENIGN}
    assert {cell: both[cell] for cell in BENIGN} == alone
    assert both == {cell: truth(rendered(cell)) for cell in (*BENIGN, *CELLS)}
    assert report.error_rows == 0 and report.prompts == len(both)
    asked = prompts_of(server)
    assert asked <= {rendered(cell) for cell in (*BENIGN, *CELLS)}
    assert {rendered(cell) for cell in CELLS} <= asked
    assert server.max_billed() == 1


def test_a_model_that_obeys_hostile_cells_spoils_their_own_rows_only(
    server: TestServer, tmp_path: Path
) -> None:
    spoilt = {rendered(cell) for cell in CELLS[:40]}
    server.answer = lambda model, prompt: OBEYED if prompt in spoilt else truth(prompt)
    cells = [*BENIGN, *CELLS[:60]]
    with opened(server, tmp_path) as con:
        table = "smart_llm(cells, cell, delta := 0.3, task := 'tone')"
        query = f"SELECT cell, {{}} FROM {table}"
        both = answered(filled(con, cells), query.format("answer"))
        errors = answered(con, query.format("error"))
        sources = answered(con, query.format("source"))
        report = con.reports[0]
    for cell in cells:
        if rendered(cell) in spoilt:
            assert both[cell] is None and sources[cell] == "error"
            assert "none of the labels" in errors[cell]
        else:
            assert both[cell] == truth(rendered(cell)) and errors[cell] is None
    assert report.error_rows == 40  # each counts as a disagreement, whatever else is assigned
    assert report.bound >= 40 / len(cells)
    assert next(m for m in report.models if m.name == "big").failed >= 40


def test_prompts_without_a_template_are_the_cells_themselves(
    server: TestServer, tmp_path: Path
) -> None:
    cells = [*BENIGN[:30], *CELLS]
    with opened(server, tmp_path) as con:
        said = answered(filled(con, cells), "SELECT cell, smart_llm(cell, 0) FROM cells")
    assert said == {cell: truth(cell) for cell in cells}
    assert prompts_of(server) == set(cells)


@pytest.mark.parametrize(
    ("call", "reply", "read"),
    [
        ("smart_filter(cell, 'Is {input} {labels} it?', 0)", json.dumps, lambda said: said),
        ("smart_classify(cell, ['good', 'bad {input}'], 0)", str, lambda said: said),
        (
            """smart_extract(cell, '{"n": "INTEGER", "t": "VARCHAR"}', 0, instruction := '{0}')""",
            json.dumps,
            lambda said: said,
        ),
    ],
)
def test_typed_calls_put_hostile_cells_between_their_words_and_read_each_answer_alone(
    server: TestServer, tmp_path: Path, call: str, reply: Any, read: Any
) -> None:
    def value(prompt: str) -> Any:
        if "smart_filter" in call:
            return truth(prompt) == "good"
        if "smart_classify" in call:
            return "good" if truth(prompt) == "good" else "bad {input}"
        return {"n": len(prompt), "t": truth(prompt)}

    server.answer = lambda model, prompt: reply(value(prompt))
    cells = [*BENIGN[:30], *CELLS]
    with opened(server, tmp_path) as con:
        said = answered(filled(con, cells), f"SELECT cell, {call} FROM cells")
    known = next(call.prompt for call in server.calls if BENIGN[7] in call.prompt)
    before, after = known.split(BENIGN[7])
    assert before and after
    assert prompts_of(server) == {before + cell + after for cell in cells}
    assert said == {cell: value(before + cell + after) for cell in cells}


def test_hostile_values_of_groups_make_groups_of_their_own(
    server: TestServer, tmp_path: Path
) -> None:
    groups = [cell for cell in CELLS if len(cell) < 1000]
    with opened(server, tmp_path) as con:
        filled(con, groups)
        spy = con._con = Spy(con._con)
        rows = con.execute(
            "SELECT cell, smart_llm('text ' || (id % 5), 0.1, task := 'tone', per := cell) "
            "FROM cells"
        ).fetchall()
        reports = con.reports
        json.dumps([report.to_dict() for report in reports])
        assert not [text for text in spy.texts for cell in groups if len(cell) > 8 and cell in text]
    truths = [truth(rendered(f"text {i % 5}")) for i in range(len(groups))]
    assert dict(rows) == dict(zip(groups, truths, strict=True))
    assert Counter(report.group for report in reports) == Counter(groups)
    assert {call.prompt for call in server.calls} == {rendered(f"text {i}") for i in range(5)}


def test_no_cell_reaches_a_text_of_sql_and_none_is_run(server: TestServer, tmp_path: Path) -> None:
    marked = [f"§{number}§{cell}" for number, cell in enumerate(CELLS) if len(cell) < 1000]
    with opened(server, tmp_path) as con:
        filled(con, marked)
        spy = con._con = Spy(con._con)
        for query in (
            "SELECT smart_llm(cell, 0.1, task := 'tone') FROM cells",
            "SELECT id FROM cells WHERE smart_filter(cell, 'ok?') OR id < 3 LIMIT 5",
            "SELECT smart_llm(cell) FROM cells UNION SELECT smart_llm(cell || 'x') FROM cells",
            "FROM smart_llm(cells, cell, delta := 0.2)",
            "EXPLAIN SELECT smart_llm(cell) FROM cells",
            "CREATE TABLE kept AS SELECT smart_classify(cell, ['a', 'b']) AS c FROM cells",
        ):
            con.execute(query).fetchall()
        con.preview("SELECT smart_llm(cell || 'new') FROM cells")
        for cell in marked[:80:5]:
            con.execute("SELECT smart_llm(?, 0)", [cell]).fetchall()
        assert len(spy.texts) > 10
        assert not [text for text in spy.texts if "§" in text]
        assert con.execute("SELECT count(*) FROM cells").fetchall() == [(len(marked),)]


def test_hostile_tasks_and_labels_are_texts_too(server: TestServer, tmp_path: Path) -> None:
    short = [cell for cell in CELLS if 0 < len(cell.strip()) < 200 and "\x00" not in cell]
    with opened(server, tmp_path) as con:
        for number, words in enumerate(short[::3]):
            with_input = words + " {input} " + words
            prompt = "x".join(with_input.split("{input}"))
            quoted = with_input.replace("'", "''")
            con.execute(f"CREATE OR REPLACE SMART TASK odd AS PROMPT '{quoted}'")
            said = con.execute("SELECT smart_llm('x', 0, task := 'odd')").fetchall()
            assert said == [(truth(prompt),)], number
            assert server.calls[-1].prompt == prompt


def test_labels_of_any_text_are_matched_as_they_are(server: TestServer, tmp_path: Path) -> None:
    labels = ["{input}", "'; DROP TABLE cells; --", "\x1b[2J", '{"answer": "x"}', "\u202eabc", "%s"]
    listed = "[" + ", ".join("'" + label.replace("'", "''") + "'" for label in labels) + "]"
    server.answer = lambda model, prompt: labels[len(prompt) % len(labels)]
    with opened(server, tmp_path) as con:
        filled(con, ["x" * i for i in range(1, 30)])
        said = answered(con, f"SELECT cell, smart_classify(cell, {listed}, 0) FROM cells")
    known = next(c.prompt for c in server.calls if "Text: x\n" in c.prompt)
    assert said == {"x" * i: labels[(len(known) - 1 + i) % len(labels)] for i in range(1, 30)}


def odd_strings(texts: Sequence[bytes]) -> pa.Array:
    """Strings of these bytes, whatever they are."""
    ends, data = [0], b""
    for text in texts:
        data += text
        ends.append(len(data))
    offsets = struct.pack(f"<{len(ends)}i", *ends)
    return pa.Array.from_buffers(
        pa.string(), len(texts), [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )


@pytest.mark.parametrize("call", ["smart_llm(cell, 0.2, task := 'tone')", "smart_llm(cell)"])
def test_strings_that_are_no_utf_8_are_sent_with_signs_in_place_of_what_cannot_be_read(
    server: TestServer, tmp_path: Path, call: str
) -> None:
    cells = [*(text.encode() for text in BENIGN), *BYTES]
    with opened(server, tmp_path) as con:
        con.register("cells", pa.table({"id": range(len(cells)), "cell": odd_strings(cells)}))
        assert con.preview(f"SELECT {call} FROM cells")[0].prompts == len(cells) - 2
        rows = con.execute(f"SELECT id, {call} FROM cells ORDER BY id").fetchall()
        report = con.reports[-1]
    texts = [cell.decode("utf-8", "replace") for cell in cells]
    sent = [rendered(text) if "tone" in call else text for text in texts]
    assert rows == [(i, truth(prompt)) for i, prompt in enumerate(sent)]
    assert prompts_of(server) == set(sent)
    assert report.rows == len(cells) and report.prompts == len(set(sent))
    assert server.max_billed() == 1


def test_learned_and_callable_models_read_hostile_cells_as_texts(
    server: TestServer, tmp_path: Path
) -> None:
    seen: list[str] = []

    def cheap(texts: list[str]) -> list[str]:
        seen.extend(texts)
        return [truth(rendered(text)) for text in texts]

    dear = dict.fromkeys(PRICES, 10.0)
    models = [
        smartsql.Model(name="big", reference=True, base_url=server.base_url, **dear),
        smartsql.Model(name="cheap", kind="python", function=cheap, version="1"),
        smartsql.Model(name="learner", kind="learned"),
    ]
    cells = [*BENIGN, *CELLS, *(f"more {i}" for i in range(200))]
    with opened(server, tmp_path, models=models) as con:
        query = "SELECT cell, smart_llm(cell, 0.1, 0.9, task := 'tone') FROM cells"
        said = answered(filled(con, cells), query)
        assert con.reports[-1].assigned_rows > 0
    assert set(seen) == set(cells)
    wrong = [cell for cell in cells if said[cell] != truth(rendered(cell))]
    assert len(wrong) <= 0.1 * len(cells)
