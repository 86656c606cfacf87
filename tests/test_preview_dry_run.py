"""A dry run: no statement, whatever its text, reaches a model or changes anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smartsql.cli import main
from tests.test_cli import CONFIG

MADE = (
    "CREATE TABLE t AS SELECT 'r ' || i AS r, 'n ' || (i % 50) AS n, i FROM range(200) g(i);"
    "CREATE VIEW v AS SELECT r, n, smart_llm(r) AS a FROM t;"
    "CREATE TABLE k AS SELECT 'x' AS a"
)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(os.getcwd())
    monkeypatch.setenv("SMARTSQL_STORE", str(tmp_path / "answers.sqlite"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    Path("smartsql.toml").write_text(CONFIG)
    assert main(["shop.duckdb", "-c", MADE]) == 0


CALL_ON_R = "smart_llm(r): 200 rows, 200 distinct prompts"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("SELECT count(a) FROM v", 1),
        ("PREPARE p AS SELECT smart_llm(r) FROM t; EXECUTE p", 1),
        ("PREPARE p AS SELECT a FROM v; EXECUTE p", 1),
        ("INSERT INTO k SELECT a FROM v", 1),
        ("UPDATE k SET a = (SELECT max(a) FROM v)", 1),
        ("DELETE FROM t WHERE smart_llm(r) = 'a'", 1),
        ("CREATE TABLE w AS SELECT * FROM v", 1),
        ("COPY (FROM v) TO 'x.csv'", 1),
        ("COPY v TO 'x.csv'", 1),
        ("PREPARE q AS COPY (SELECT 1) TO 'x.csv'; EXECUTE q", 0),
        ("COPY t TO 'x.csv'", 0),
        ("ATTACH 'new.db'; SELECT 1", 0),
        ("DROP TABLE k; CREATE TABLE zz AS SELECT 1 AS a; UPDATE t SET n = 'b'", 0),
        ("BEGIN; SELECT count(a) FROM v; COMMIT", 1),
        ("RESET VARIABLE smartsql_connection; SELECT max(a) FROM v", 1),
        ("SET VARIABLE smartsql_connection = 77; SELECT max(a) FROM v", 1),
        ("EXPLAIN ANALYZE SELECT max(a) FROM v", 1),
        ("CREATE MACRO mm(x) AS smart_llm(x); SELECT mm(r) FROM t", 1),
        ("WITH x AS (SELECT a FROM v) INSERT INTO k SELECT a FROM x", 1),
    ],
)
def test_nothing_is_asked_or_changed_and_the_price_is_shown(
    text: str, shown: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(os.listdir())
    assert main(["shop.duckdb", "--dry-run", "-c", text]) == 0
    assert capsys.readouterr().out.count(CALL_ON_R) >= shown
    assert sorted(set(os.listdir()) - {"answers.sqlite-shm", "answers.sqlite-wal"}) == [
        name for name in before if not name.endswith(("-shm", "-wal"))
    ]
    state = (
        "SELECT count(*) FROM smart_ledger(); SELECT min(a), count(*) FROM k; "
        "SELECT count(DISTINCT n) FROM t; SELECT count(*) FROM duckdb_tables()"
    )
    assert main(["shop.duckdb", "-csv", "-c", state]) == 0
    assert capsys.readouterr().out.splitlines()[1::2] == ["0", "x,1", "50", "2"]
