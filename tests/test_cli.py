"""The command line, as a user meets it."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from smartsql.cli import main

CONFIG = """
seed = 3
[[models]]
name = "big"
kind = "python"
function = "tests.models:big"
reference = true
input_usd_per_mtok = 100.0
output_usd_per_mtok = 100.0
[[models]]
name = "small"
kind = "python"
function = "tests.models:small"
input_usd_per_mtok = 1.0
output_usd_per_mtok = 1.0
"""
TABLE = "CREATE TABLE r AS SELECT i AS id, 'review ' || i AS review FROM range(2000) t(i);"
CALL = "SELECT id, smart_llm(review, 0.1, 0.95) AS tone FROM r ORDER BY id"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.setenv("SMARTSQL_STORE", str(tmp_path / "answers.sqlite"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("smartsql.toml").write_text(CONFIG)


def ran(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The program as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "smartsql", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_answers_go_to_stdout_and_the_bill_to_stderr() -> None:
    done = ran("-csv", "-c", TABLE, "-c", CALL, "--report", "report.json")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(rows) == 2000
    assert {row["tone"] for row in rows} == {"good", "bad"}
    assert "smart: 2,000 rows, $" in done.stderr
    report = json.loads(Path("report.json").read_text())
    assert report["spend_usd"] < 0.5 * report["reference_spend_usd"]
    again = ran("-csv", "-c", TABLE, "-c", CALL)
    assert again.stdout == done.stdout
    assert "smart: 2,000 rows, $0.00" in again.stderr


def test_a_report_verifies_and_a_forged_one_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-csv", "-c", TABLE + CALL, "--report", "report.json"]) == 0
    assert main(["verify", "report.json"]) == 0
    assert "the report holds." in capsys.readouterr().out
    report = json.loads(Path("report.json").read_text())
    tests = report["certificate"]["tests"]
    for forged in (
        {**report, "audited_rows": report["audited_rows"] + 1},
        {**report, "certificate": {**report["certificate"], "tests": tests[:-1]}},
    ):
        Path("forged.json").write_text(json.dumps(forged))
        assert main(["verify", "forged.json"]) == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("-csv", 'a,b\n1,"x,y"\n'),
        ("-json", '[\n\t{"a":1,"b":"x,y"}\n]\n'),
        ("-jsonlines", '{"a":1,"b":"x,y"}\n'),
        ("-markdown", "| a | b |\n| --- | --- |\n| 1 | x,y |\n"),
    ],
)
def test_results_are_printed_as_asked(
    style: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([style, "-c", "SELECT 1 AS a, 'x,y' AS b"]) == 0
    assert capsys.readouterr().out == expected


def test_the_box_shows_names_and_types(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-c", "SELECT 1 AS a, 'x' AS b"]) == 0
    out = capsys.readouterr().out
    assert "varchar" in out
    assert "│" in out


def test_statements_without_rows_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-c", "CREATE TABLE t (i INT); INSERT INTO t VALUES (1)"]) == 0
    assert capsys.readouterr().out == ""


def test_sql_is_read_from_a_file_and_from_standard_input() -> None:
    Path("q.sql").write_text("SELECT 'from file' AS x;")
    assert "from file" in ran("-csv", "-f", "q.sql").stdout
    assert "piped" in ran("-csv", stdin="SELECT 'piped' AS x").stdout


def test_a_database_file_keeps_tables() -> None:
    assert ran("shop.duckdb", "-c", TABLE).returncode == 0
    done = ran("shop.duckdb", "-csv", "-readonly", "-c", "SELECT count(*) AS n FROM r")
    assert done.stdout == "n\n2000\n"


def test_a_dry_run_asks_nobody_and_keeps_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shop.duckdb", "-c", TABLE + CALL, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "2,000 rows, 2,000 distinct prompts" in out
    assert "expected $" in out
    assert main(["shop.duckdb", "-c", "SELECT count(*) FROM smart_ledger()", "-csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "0"
    assert main(["shop.duckdb", "-c", "FROM r"]) == 1


def test_the_budget_ends_with_its_own_code_and_a_larger_one_goes_on() -> None:
    done = ran("--budget", "0.0005", "-c", TABLE, "-c", CALL)
    assert done.returncode == 3
    assert "error: budget of $0.0005 reached" in done.stderr
    assert ran("--budget", "5", "-c", TABLE, "-c", CALL).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--nonsense"], 2, "No such option"),
        (["-c", "SELECT 1", "--report", "x.txt"], 2, "FILE.html or FILE.json"),
        (["-f", "missing.sql"], 2, "does not exist"),
        (["-c", "SELEC 1"], 1, "syntax error"),
        (["-c", "SELECT * FROM nowhere"], 1, "nowhere"),
        (["-c", "SELECT smart_llm('x', 2.0, 0.95)"], 1, "delta is 2.0"),
        (["-c", "SELECT smart_llm('x', task := 'tone')"], 1, "no task 'tone'"),
        (["--config", "none.toml", "-c", "SELECT 1"], 1, "'none.toml' does not exist"),
        (["verify", "q.json"], 2, "does not exist"),
    ],
)
def test_what_goes_wrong_is_said_in_one_line(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_an_html_report_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-csv", "-c", TABLE + CALL, "--report", "r.html"]) == 0
    page = Path("r.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "smart_llm(review)" in page
    assert "src=" not in page


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = (
        "import sys, smartsql; "
        "heavy = {'openai', 'scipy', 'highspy', 'sklearn', 'numpy', 'pydantic', 'duckdb'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_help_names_the_other_commands() -> None:
    done = ran("--help")
    assert done.returncode == 0
    for command in ("demo", "replay", "verify"):
        assert command in done.stdout
        assert ran(command, "--help").returncode == 0
