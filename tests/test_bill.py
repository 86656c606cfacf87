"""What the command line says of a statement: a line a call, and once what holds of all."""

from __future__ import annotations

from pathlib import Path

import pytest

import smartsql
from smartsql.cli import main
from smartsql.gateway import Form, Request
from smartsql.gateway.local import PythonBackend
from smartsql.reports.bill import told
from tests.test_cli import CONFIG, TABLE

JOINT = "This statement has"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMARTSQL_STORE", str(tmp_path / "answers.sqlite"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("smartsql.toml").write_text(CONFIG)


def lines(sql: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["-csv", "-c", TABLE + sql]) == 0
    return capsys.readouterr().err.splitlines()


def test_groups_share_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    said = lines("SELECT smart_llm(review, per := id % 4) AS t FROM r", capsys)
    bills = [line for line in said if line.startswith("smart:")]
    assert len(bills) == 1
    assert bills[0].startswith("smart: 2,000 rows in 4 groups of id % 4, $")
    assert "in each of them at most 10.00% of the rows differ" in bills[0]
    joint = [line for line in said if JOINT in line]
    assert len(joint) == 1
    assert "4 groups so far" in joint[0] and "probability at least 0.8." in joint[0]


def test_waves_of_one_call_say_in_one_sentence_what_holds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = lines("SELECT id FROM r WHERE smart_llm(review) = 'neither' LIMIT 2", capsys)
    bills = [line for line in said if line.startswith("smart:")]
    assert len(bills) == 1 and " waves, $" in bills[0]
    joint = [line for line in said if JOINT in line]
    assert len(joint) == 1
    assert "one call, answered in" in joint[0]
    assert "about the rows asked, not about those that a condition let through" in joint[0]


def test_several_calls_have_a_line_with_their_name_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = lines("SELECT smart_llm(review), smart_llm(review || '!') FROM r", capsys)
    bills = sorted(line for line in said if line.startswith("smart:"))
    assert [bill.split(": ")[1] for bill in bills] == [
        "smart_llm(review || '!')",
        "smart_llm(review)",
    ]
    assert "This statement has 2 calls so far" in [s for s in said if JOINT in s][-1]


def test_many_notes_are_cut() -> None:
    with smartsql.connect() as con:
        con.execute(TABLE)
        con.execute("SELECT smart_llm(review, per := id % 40) FROM r WHERE id < 400").fetchall()
        said = told(con.reports)
        assert sum(line.startswith("smart:") for line in said) == 1
        assert len(said) <= 10


def test_tasks_are_made_and_used_in_one_text(capsys: pytest.CaptureFixture[str]) -> None:
    task = "CREATE SMART TASK tone AS PROMPT 'Good; or bad? {input}' LABELS ('good', 'bad');"
    call = "SELECT smart_llm(review, task := 'tone') AS t FROM r LIMIT 3"
    assert main(["-csv", "-c", TABLE + task + call, "--dry-run"]) == 0
    assert "3 rows, 3 distinct prompts" in capsys.readouterr().out
    assert main(["-csv", "-c", "SELECT count(*) AS n FROM smart_tasks()"]) == 0
    assert capsys.readouterr().out == "n\n0\n"
    assert main(["-csv", "-c", TABLE + task + call]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["-csv", "-c", task]) == 1
    assert "there is a smart task 'tone' already" in capsys.readouterr().err
    assert main(["-csv", "-c", task, "--dry-run"]) == 1
    assert main(["-c", f"DROP SMART TASK tone; {task}", "--dry-run"]) == 0
    assert main(["-c", "DROP SMART TASK tone"]) == 0
    assert main(["-c", "DROP SMART TASK tone", "--dry-run"]) == 1
    assert "there is no smart task 'tone'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reads", "form", "told_text"),
    [
        (None, None, "cell"),
        (None, Form.of("answer", {}, is_open=False), "prompt"),
        ("cell", Form.of("answer", {}, is_open=False), "cell"),
        ("prompt", None, "prompt"),
    ],
)
def test_a_function_is_told_the_question_of_typed_calls(
    reads: object, form: Form | None, told_text: str
) -> None:
    seen: list[str] = []

    def model(texts: list[str]) -> list[str]:
        seen.extend(texts)
        return ["x" for _ in texts]

    backend = PythonBackend("f", model, reads=reads)  # type: ignore[arg-type]
    list(backend._called([Request(0, "cell", "prompt", form)]))
    assert seen == [told_text]
    backend.close()


def test_what_functions_read_is_checked() -> None:
    model = {"name": "f", "kind": "python", "function": len, "reference": True}
    with pytest.raises(smartsql.errors.ConfigError, match='reads = "cell" or reads = "prompt"'):
        smartsql.connect(
            config=smartsql.Settings(), models=[smartsql.Model(**model, parameters={"reads": "x"})]
        )
