"""The command line, as a user meets it."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from smartsql.cli import main
from smartsql.demo.packages import PACKAGES
from smartsql.reports.report import report_from_dict

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


def test_types_and_names_that_arrow_lacks_are_printed_as_duckdb_has_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    query = (
        "SET TimeZone = 'America/New_York';"
        "SELECT 1 AS a, 2 AS a, '0101'::BIT AS b, ['01'::BIT] AS l, NULL AS n, 3 AS \"q\"\"\", "
        "'6d3d2541-710b-4bde-b3af-4711738636bf'::UUID AS u, 5::UHUGEINT AS h, "
        "TIMESTAMPTZ '2020-01-01 00:00:00+00' AS t"
    )
    cells = "6d3d2541-710b-4bde-b3af-4711738636bf,5,2019-12-31 19:00:00-05\n"
    assert main(["-csv", "-c", query]) == 0
    assert capsys.readouterr().out == f'a,a,b,l,n,"q""",u,h,t\n1,2,0101,[01],,3,{cells}'
    assert main(["-markdown", "-c", query]) == 0
    assert capsys.readouterr().out.startswith('| a | a | b | l | n | q" | u | h | t |\n')
    assert main(["-jsonlines", "-c", query]) == 0
    assert '{"a":1,"a_1":2,"b":"0101","l":["01"],"n":null,' in capsys.readouterr().out
    assert main(["-c", query]) == 0
    header = capsys.readouterr().out.splitlines()
    assert header[1].replace("│", "").split() == ["a", "a", "b", "l", "n", 'q"', "u", "h", "t"]
    assert header[2].replace("│", "").split()[:7] == [
        *("int32", "int32", "bit", "bit[]", '"null"', "int32", "uuid")
    ]


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


def test_a_dry_run_says_that_it_did_not_create_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    made = "CREATE TABLE q AS SELECT smart_llm(review) AS tone FROM r;"
    for after in ("SELECT * FROM q", "SELECT smart_llm(tone) FROM q"):
        assert main(["-c", TABLE + made + after, "--dry-run"]) == 1
        err = capsys.readouterr().err
        assert "Table with name q does not exist! The dry run created nothing" in err
        assert "CREATE TABLE q AS" in err
    assert main(["-c", TABLE + "SELECT smart_llm(review) FROM r; FROM q", "--dry-run"]) == 1
    assert "dry run" not in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_an_error_and_the_answers_stay(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("link.json").symlink_to("nodir/report.json")  # its own folder is there
    assert main(["-csv", "-c", TABLE + CALL, "--report", "link.json"]) == 1
    done = capsys.readouterr()
    assert done.out.count("\n") == 2001
    assert "error: cannot write the report 'link.json': No such file or directory." in done.err
    costly = (
        TABLE + "SELECT smart_llm(review, 0.1, 0.9) FROM r; SELECT smart_llm(id::VARCHAR) FROM r"
    )
    arguments = ["-csv", "-c", costly, "--budget", "0.0005", "--report", "link.json"]
    assert main(arguments) == 3
    err = capsys.readouterr().err
    assert "error: cannot write the report" in err
    assert "error: budget of $0.0005 reached" in err
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert main(["-c", "SELECT 1", "--report", "x.json"]) == 2
    assert "'.' cannot be written to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"statement": "zz"}, "the report is malformed (ValueError"),
        ({"statement": None}, "the report is malformed (TypeError"),
        ({"models": []}, "the report is malformed (IndexError"),
        ({"task_definition": {}}, "the report is malformed (KeyError: 'labels')"),
        ({"store": None}, "names no store; give it with --store"),
        ({"store": "none.sqlite"}, "'none.sqlite' does not exist; give it with --store"),
        ({"store": ":memory:"}, "whose answers ended with the program"),
    ],
)
def test_a_malformed_report_is_refused_in_one_line(
    change: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-csv", "-c", TABLE + CALL, "--report", "report.json"]) == 0
    capsys.readouterr()
    report = json.loads(Path("report.json").read_text())
    Path("changed.json").write_text(json.dumps({**report, **change}))
    assert main(["verify", "changed.json"]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_one_row_and_no_saving_are_written_as_people_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["-csv", "-c", "SELECT smart_llm('x')", "--report", "r.json"]) == 0
    assert "smart: 1 row, $" in capsys.readouterr().err
    report = report_from_dict(json.loads(Path("r.json").read_text()))
    dearer = replace(report, spend=1.001, reference_spend=1.0, rows=2, error_rows=1)
    assert ", 0% saved); 1 row has no answer and counts as different" in dearer.bill()
    assert dearer.bill().startswith("smart: 2 rows, ")
    assert dict(replace(dearer, spend=1.0001).lines())["spend"].endswith(": 0.0% saved")


@pytest.mark.parametrize("module", list(PACKAGES))
def test_the_demo_sees_what_is_missing_before_it_starts(
    module: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in PACKAGES:
        monkeypatch.setitem(sys.modules, other, found(other))
    monkeypatch.setitem(sys.modules, module, None)  # type: ignore[arg-type]
    assert main(["demo", "--store", "demo.sqlite"]) == 1
    done = capsys.readouterr()
    assert done.out == ""
    assert f"needs the package {PACKAGES[module]!r}" in done.err
    assert "pip install 'smartsql[demo]'" in done.err


def found(module: str) -> ModuleType:
    """A stand-in for an installed package."""
    made = ModuleType(module)
    made.__spec__ = ModuleSpec(module, None)
    return made


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
        (["-c", "SELECT 1", "--report", "nodir/x.json"], 2, "there is no folder 'nodir'"),
        (["nodir/x.duckdb", "-c", "SELECT 1"], 1, "cannot open the database 'nodir/x.duckdb'"),
        (["smartsql.toml", "-c", "SELECT 1"], 1, "not a valid DuckDB database"),
        (["-readonly", "none.duckdb", "-c", "SELECT 1"], 1, "cannot open the database 'none"),
        (["-f", "latin.sql"], 2, "cannot read 'latin.sql'"),
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
    Path("latin.sql").write_bytes("SELECT 'é'".encode("latin-1"))
    assert main(arguments) == code
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert err.count("\n") == 1 or code == 2 or "LINE 1" in err


def test_a_report_can_be_verified_from_any_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["-csv", "-c", TABLE + CALL, "--report", "r.json"]) == 0
    report = Path("r.json").absolute()
    monkeypatch.chdir("/")
    assert main(["verify", str(report)]) == 0


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
