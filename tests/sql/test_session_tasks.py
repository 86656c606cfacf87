"""Tasks are defined, listed, versioned and dropped with SQL, and calls use them by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import smartsql
from smartsql.errors import ConfigError, QueryError
from smartsql.sql.smart_tasks import task_statement
from tests.gateway.server import TestServer

TONE = "CREATE SMART TASK tone AS PROMPT 'Good or bad? {input}' LABELS ('good', 'bad')"


def said(model: str, prompt: str) -> str:
    return "bad" if "awful" in prompt else f"good ({prompt.partition('?')[0]})"


@pytest.fixture
def server() -> Iterator[TestServer]:
    with TestServer(answer=said) as running:
        yield running


def opened(server: TestServer, folder: Path, **settings: Any) -> Any:
    model = smartsql.Model(
        name="big",
        reference=True,
        input_usd_per_mtok=1,
        output_usd_per_mtok=1,
        base_url=server.base_url,
    )
    return smartsql.connect(
        config=smartsql.Settings(), models=[model], store=str(folder / "a.sqlite"), **settings
    )


def listed(con: Any) -> list[Any]:
    query = "SELECT name, version, defined_in, prompt, labels, equal FROM smart_tasks() ORDER BY 1"
    return list(con.execute(query).fetchall())


def test_a_task_is_there_for_every_connection_on_the_ledger(
    server: TestServer, tmp_path: Path
) -> None:
    row = ("tone", 1, "SQL", "Good or bad? {input}", ["good", "bad"], "auto")
    with opened(server, tmp_path) as con:
        assert con.execute(TONE).fetchall() == [("tone", 1)]
        assert listed(con) == [row]
    with opened(server, tmp_path) as con:
        assert listed(con) == [row]
        con.execute("CREATE TABLE t AS SELECT 'awful' AS r")
        assert con.execute("SELECT smart_llm(r, task := 'tone') FROM t").fetchall() == [("bad",)]
        con.execute("SET VARIABLE smartsql_task = 'tone'")
        assert con.execute("SELECT r FROM t WHERE smart_llm(r) = 'bad'").fetchall() == [("awful",)]


def test_a_new_version_replaces_and_asks_its_own_prompt(server: TestServer, tmp_path: Path) -> None:
    ask = "SELECT smart_llm('x', task := 'tone')"
    with opened(server, tmp_path) as con:
        con.execute("CREATE SMART TASK tone AS PROMPT 'One? {input}'")
        assert con.execute(ask).fetchall() == [("good (One)",)]
        with pytest.raises(QueryError, match="CREATE OR REPLACE SMART TASK"):
            con.execute("CREATE SMART TASK tone AS PROMPT 'Two? {input}'")
        con.execute("CREATE OR REPLACE SMART TASK tone AS PROMPT 'Two? {input}' EQUAL 'text'")
        assert con.execute(ask).fetchall() == [("good (Two)",)]
        assert listed(con) == [("tone", 2, "SQL", "Two? {input}", [], "text")]


def test_a_dropped_task_is_gone_and_its_numbers_go_on(server: TestServer, tmp_path: Path) -> None:
    with opened(server, tmp_path) as con:
        con.execute(f"{TONE}; SELECT smart_llm('awful', task := 'tone'); DROP SMART TASK tone")
        assert listed(con) == []
        with pytest.raises(ConfigError, match="no task 'tone'"):
            con.execute("SELECT smart_llm('y', task := 'tone')").fetchall()
        with pytest.raises(QueryError, match="no smart task 'tone'"):
            con.execute("DROP SMART TASK tone")
        assert con.execute("DROP SMART TASK IF EXISTS tone").fetchall() == [("tone", 0)]
        assert con.sql(TONE).fetchall() == [("tone", 3)]


def test_a_task_of_the_configuration_stays_there(server: TestServer, tmp_path: Path) -> None:
    tasks = {"tone": {"prompt": "Mine? {input}"}}
    with opened(server, tmp_path, tasks=tasks) as con:
        for text in (TONE, TONE.replace("CREATE", "CREATE OR REPLACE"), "DROP SMART TASK tone"):
            with pytest.raises(ConfigError, match="defined in the configuration"):
                con.execute(text)
        assert listed(con) == [("tone", None, "configuration", "Mine? {input}", [], "auto")]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("CREATE SMART TASK tone AS 'Good? {input}'", "cannot read"),
        ("CREATE SMART TASK AS PROMPT 'Good? {input}'", "cannot read"),
        ("CREATE SMART TASK tone AS PROMPT 'Good? {input}' LABELS (a, b)", "cannot read"),
        ("CREATE SMART TASK tone AS PROMPT 'Good? {input}' KEY 'secret'", "cannot read"),
        ("CREATE SMART TASK tone AS PROMPT 'Good? {input}' EQUAL 'nearly'", "one of auto"),
        ("CREATE SMART TASK tone AS PROMPT 'Good?'", "has no {input}"),
        ("CREATE SMART TASK t AS PROMPT '{input}' LABELS ('A', 'a')", "must differ"),
        ("DROP SMART TASK", "cannot read"),
    ],
)
def test_what_cannot_be_a_task_says_why(
    text: str, error: str, server: TestServer, tmp_path: Path
) -> None:
    with opened(server, tmp_path) as con:
        with pytest.raises((QueryError, ConfigError), match=error):
            con.execute(text)
        assert listed(con) == []


@pytest.mark.parametrize(
    "text",
    ["SELECT 'CREATE SMART TASK'", "CREATE TABLE smart(task INTEGER)", "-- DROP SMART TASK x", ""],
)
def test_other_statements_are_not_about_tasks(text: str) -> None:
    assert task_statement(text) is None
