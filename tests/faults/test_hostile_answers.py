"""Answers that mean no good: read as what they are or not at all, and printed harmlessly."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smartsql.cli import main
from smartsql.cli.output import say
from smartsql.errors import SmartSQLError
from smartsql.gateway.openai_wire import Failure, Reply, read_reply
from smartsql.printable import plain
from smartsql.reports.verify import verify
from tests.faults.cells import ANSWERS, CELLS
from tests.faults.hostile import BENIGN, HARMFUL, LABELS, answered, filled, opened, truth
from tests.gateway.asking import QUICK
from tests.gateway.server import Answer, Call, Fault, TestServer


@pytest.fixture
def server() -> Iterator[TestServer]:
    with TestServer(lambda model, prompt: truth(prompt)) as running:
        yield running


@pytest.mark.parametrize("kind", ["llm", "labels", "filter", "classify", "extract"])
def test_hostile_answers_spoil_their_own_rows_only(
    server: TestServer, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    call, good = {
        "llm": ("smart_llm(cell, 0.2)", "good"),
        "labels": ("smart_llm(cell, 0.2, task := 'tone')", "good"),
        "filter": ("smart_filter(cell, 'ok?', 0.2)", "true"),
        "classify": ("smart_classify(cell, ['good', 'bad'], 0.2)", "good"),
        "extract": ('smart_extract(cell, \'{"a": "DOUBLE", "b": ["VARCHAR"]}\', 0.2)', ""),
    }[kind]
    good = good or '{"a": 1.5, "b": ["x"]}'
    numbered = re.compile(r"odd (\d+)\b")

    def said(model: str, prompt: str) -> Answer:
        found = numbered.search(prompt)
        return Answer(ANSWERS[int(found[1])] if found else good, usage=(9, 2))

    server.answer = said
    cells = [*BENIGN, *(f"odd {i}" for i in range(len(ANSWERS)))]
    with opened(server, tmp_path) as con:
        filled(con, cells)
        rows = con.execute(f"SELECT cell, {call} FROM cells").fetchall()
        report = con.reports[-1]
        assert all(check.holds for check in verify(report.to_dict(), con.engine.store))
        n_calls = len(server.calls)
        again = con.execute(f"SELECT cell, {call} FROM cells").fetchall()
        assert repr(dict(again)) == repr(dict(rows))
        retried = server.calls[n_calls:]
        assert all("odd" in c.prompt and c.model == "big" for c in retried)
        json.loads(report.to_json()), report.to_html()
    answers = dict(rows)
    expected = {"filter": True, "extract": {"a": 1.5, "b": ["x"]}}.get(kind, good)
    assert all(answers[cell] == expected for cell in BENIGN)
    odd = [answers[f"odd {i}"] for i in range(len(ANSWERS))]
    assert report.error_rows == sum(answer is None for answer in odd)
    if kind == "llm":
        shown = [a.encode("utf-8", "replace").decode() for a in ANSWERS]
        assert [a for a in odd if a is not None] and odd[shown.index("1e999")] == "1e999"
        longest = max(a for a in odd if a is not None and set(a) == {"x"})
        assert len(longest) == 1_000_000
    elif kind in ("labels", "classify"):
        assert set(odd) <= {None, *LABELS}
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


EXTRACTED = (
    ('{"a": 1e999, "b": null}', False),
    ('{"a": -1e999, "b": null}', False),
    ('{"a": NaN, "b": null}', False),
    ('{"a": Infinity, "b": null}', False),
    ('{"a": ' + "9" * 5000 + ', "b": null}', False),
    ('{"a": 1, "a": 2, "b": null}', False),
    ('{"a": 1, "b": ' + "[" * 50_000 + "]" * 50_000 + "}", False),
    ('{"a": ' * 20_000 + "1" + "}" * 20_000, False),
    ('{"a": 1, "b": ["' + "x" * 900_000 + '"]}', True),
    ('{"a": 1, "b": ["\\u0000\\u001b[2J", "\\u202e"]}', True),
    ('{"a": 1, "b": ["\\ud800"]}', False),
    ('{"a": 1, "b": [' + ",".join(['"x"'] * 50_000) + "]}", True),
    ('{"a": 1e-400, "b": []}', True),
    ('{"a": "1\\u0000", "b": []}', False),
    ('{"a": {"$ne": 1}, "b": []}', False),
    ('{"a": 1, "b": [], "__class__": "x"}', False),
)


def test_structures_are_read_as_what_they_say_or_not_at_all(
    server: TestServer, tmp_path: Path
) -> None:
    numbered = re.compile(r"odd (\d+)\b")
    server.answer = lambda model, prompt: EXTRACTED[int(numbered.search(prompt)[1])][0]  # type: ignore[index]
    with opened(server, tmp_path) as con:
        filled(con, [f"odd {i}" for i in range(len(EXTRACTED))])
        rows = con.execute(
            'SELECT id, smart_extract(cell, \'{"a": "DOUBLE", "b": ["VARCHAR"]}\', 0) '
            "FROM cells ORDER BY id"
        ).fetchall()
    usable = [answer is not None for _, answer in rows]
    assert usable == [expected for _, expected in EXTRACTED]
    assert rows[9][1]["b"] == ["\x00\x1b[2J", "\u202e"]
    assert len(rows[8][1]["b"][0]) == 900_000 and len(rows[11][1]["b"]) == 50_000


def body(**changes: Any) -> dict[str, Any]:
    choice = {"message": {"content": "good"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 1}
    return {"choices": [choice], "model": "m", "usage": usage, **changes}


BODIES = (
    '{"choices": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "[" * 100_000,
    '{"a":' * 100_000,
    '{"error": ' + '{"error": ' * 50_000 + "1" + "}" * 50_000 + "}",
    json.dumps(body(usage={"prompt_tokens": 10**30, "completion_tokens": -1})),
    json.dumps(body(usage=[1])),
    json.dumps(body(model=["x"])),
    json.dumps(body(model="\ud800" * 10)),
    json.dumps(body(choices=[None])),
    json.dumps(body(choices=[{"message": {"content": {"a": 1}}}])),
    json.dumps(body(choices=[{"message": {"content": "good", "refusal": {"a": 1}}}])),
    json.dumps({"error": {"code": 10**400, "message": "x"}}),
    json.dumps({"error": {"code": True, "message": ["x"] * 1000}}),
    '{"choices": [{"message": {"content": "good"}, "finish_reason": 1e999}], "usage": NaN}',
    '{"choices": [{"message": {"content": "a"}}], "choices": []}',
    '{"choices": [{"message": {"content": ' + "9" * 5000 + "}}]}",
    "\ufeff" + json.dumps(body()),
    "\x00" * 1000,
    json.dumps(body()) + "garbage",
    *(
        json.dumps(body(choices=[{"message": {"content": "good"}, "logprobs": {"content": bad}}]))
        for bad in (
            [{"token": "good", "logprob": 10**400}],
            [{"token": "good", "logprob": float("nan")}],
            [{"token": "good", "logprob": float("-inf"), "top_logprobs": [{"token": "bad"}]}],
            [{"token": "good", "logprob": -1, "top_logprobs": {"token": 1}}],
            [{"token": "\x00" * 100, "logprob": 1e308}] * 1000,
            [{"token": ["good"], "logprob": True}],
            "good",
            [[1]],
        )
    ),
)


@pytest.mark.parametrize("number", range(len(BODIES)))
def test_no_body_of_a_response_breaks_its_reading(number: int) -> None:
    raw = BODIES[number].encode("utf-8", "surrogatepass")
    for labels in ((), LABELS):
        outcome = read_reply(raw, "application/json", labels)
        assert isinstance(outcome, (Reply, Failure))
        if isinstance(outcome, Reply) and outcome.confidence is not None:
            assert 0.0 <= outcome.confidence <= 1.0


def test_bodies_of_all_kinds_end_in_answers_or_failed_rows_beside_answered_ones(
    server: TestServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    numbered = re.compile(r"odd (\d+)\b")

    def fault(call: Call) -> Fault | None:
        found = numbered.search(call.prompt)
        return Fault("body", body=BODIES[int(found[1])]) if found and call.seen == 0 else None

    server.faults = fault
    server.answer = lambda model, prompt: Answer("good", [("good", -0.1, [("good", -0.1)])])
    cells = [*BENIGN, *(f"odd {i}" for i in range(len(BODIES)) if "\ud800" not in BODIES[i])]
    with opened(server, tmp_path) as con:
        for backend in con.engine.backends.values():
            backend._policy = QUICK
        said = answered(filled(con, cells), "SELECT cell, smart_llm(cell, 0) FROM cells")
    assert {said[cell] for cell in BENIGN} == {"good"}
    assert not [r for r in caplog.records if r.levelname == "ERROR" or "internal" in r.getMessage()]


# --- what is printed ----------------------------------------------------------------------------


def test_signs_stand_for_what_a_terminal_would_obey() -> None:
    assert plain("a\x1b[2J\x00\x07b\r\nc\td\n") == "a␛[2J␀␇b\r\nc\td\n"
    assert plain("\x7f\x9b\u202e\u2066x") == "␡���x"
    assert plain("over\rwritten") == "over␍written"
    assert plain("Grüße, 你好, שלום, 👨‍👩‍👧") == "Grüße, 你好, שלום, 👨‍👩‍👧"
    assert not any(HARMFUL.search(plain(text)) for text in (*CELLS, *ANSWERS))


SHOWN = (
    "\x1b[2J\x1b]0;owned\x07good", "\x9b31mgood", "\u202edoog", "good\rgood nothing", "\x00\x08",
    "a | b\n| --- |", "<script>alert(1)</script>",
)  # fmt: skip


@pytest.mark.parametrize("style", ["-box", "-markdown", "-csv", "-json", "-jsonlines"])
def test_answers_errors_notes_and_groups_are_printed_harmlessly(
    server: TestServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    style: str,
) -> None:
    server.answer = lambda model, prompt: SHOWN[len(prompt) % len(SHOWN)]
    monkeypatch.chdir(tmp_path)
    Path("smartsql.toml").write_text(
        f"store = 'a.sqlite'\n[[models]]\nname = 'big'\nreference = true\n"
        f"base_url = '{server.base_url}'\ninput_usd_per_mtok = 1\noutput_usd_per_mtok = 1\n"
        f"[tasks.tone]\nprompt = 'Tone? {{input}}'\nlabels = ['x', 'y']\n"
    )
    make = (
        "CREATE TABLE t AS SELECT repeat('x', i) AS a, chr(27) || '[31m' || (i % 2) AS g "
        "FROM range(14) r(i)"
    )
    reports = ["--report", "report.html"]
    asked = "SELECT a, g, smart_llm(a, 0, per := g) AS s FROM t ORDER BY a"
    assert main(["-c", make, "-c", asked, style, *reports]) == 0
    out, err = capfd.readouterr()
    is_drawn = style in ("-box", "-markdown")
    assert bool(HARMFUL.search(out)) == (style == "-csv" or "json" in style)
    if not is_drawn:
        assert out.count("\u202e") == 2  # data that goes to another program stays as it is
    assert not HARMFUL.search(err) and "group" in err
    page = Path("report.html").read_text()
    assert not HARMFUL.search(page) and "<script>" not in page
    assert main(["-c", make, "-c", "SELECT smart_llm(a, 0, task := 'tone') FROM t", style]) == 1
    out, err = capfd.readouterr()
    assert "none of the labels" in err and not HARMFUL.search(out + err)
    assert main(["-c", make, "-c", asked, "--dry-run"]) == 0
    assert not HARMFUL.search("".join(capfd.readouterr()))


def test_what_an_endpoint_says_in_an_error_is_printed_harmlessly(
    server: TestServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.faults = lambda call: Fault("status", status=400, message="".join(SHOWN))
    with opened(server, tmp_path, on_error="error") as con:
        with pytest.raises(SmartSQLError) as raised:
            con.execute("SELECT smart_llm('x', 0)").fetchall()
        (stored,) = con.execute("SELECT error FROM smart_ledger() LIMIT 1").fetchone()
    say(str(raised.value))
    assert "owned" in str(raised.value)
    assert not HARMFUL.search(stored + str(raised.value) + capfd.readouterr().err)
