"""Keys reach the endpoint and nothing else."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import duckdb
import pytest

import smartsql
from smartsql.cli import main
from smartsql.cli.shell import Shell
from smartsql.errors import ConfigError, SmartSQLError
from smartsql.gateway.key import Key
from tests.faults.secrets.canary import (
    CANARY,
    FILE,
    STATEMENT,
    everything_below,
    filled,
    listed,
    logged,
    shown,
    told,
    written,
)
from tests.gateway.asking import QUICK
from tests.gateway.server import Fault, TestServer


def test_a_key_reaches_the_endpoint_and_nothing_else(
    server: TestServer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    with smartsql.connect(config=written(server)) as con:
        filled(con)
        seen = [str(con.sql(f"EXPLAIN {STATEMENT}").fetchall())]
        seen += [str(con.preview(STATEMENT)), repr(con.preview(STATEMENT))]
        seen += [str(con.execute(STATEMENT).fetchall())]
        for table in ("reports", "models", "ledger", "tasks"):
            seen.append(listed(con, table))
        report = con.reports[-1]
        seen += [report.to_json(), report.to_html(), str(report), repr(report), report.bill()]
        assert server.calls
        keys = {call.headers["authorization"] for call in server.calls}
        assert keys == {f"Bearer {CANARY}"}
        backend = con.engine.backends["big"]
        seen += [shown(x) for x in (con, con.engine, con.engine.settings, backend)]
        assert "AsyncOpenAI" in seen[-1] and "<key from the environment variable" in seen[-1]
        for whatever in (con, con.engine, backend):
            with pytest.raises(TypeError) as refused:
                pickle.dumps(whatever)
            seen.append(told(refused.value))
        seen.append(everything_below(tmp_path).decode("latin-1"))
    seen += [everything_below(tmp_path).decode("latin-1"), logged(caplog), *capfd.readouterr()]
    assert (tmp_path / "kept" / "answers.sqlite").stat().st_size > 0
    assert CANARY not in "\n".join(seen)


def test_a_key_shows_itself_nowhere_and_cannot_be_copied() -> None:
    key = Key.of(CANARY, "a test")
    assert key.reveal() == CANARY
    assert repr(key) == str(key) == f"{key}" == "<key from a test>"
    assert CANARY not in shown(key)
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            copied(key)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=401, code="invalid_api_key", message=f"Incorrect key: {CANARY}."),
        Fault("status", status=400, message=f"bad header Authorization: Bearer {CANARY}", code="x"),
        Fault("status", status=404, code=CANARY, param=CANARY, message=f"{CANARY[:20]}... unknown"),
        Fault("status", status=500, message="z" * 190 + CANARY),
        Fault("status", status=429, code="insufficient_quota", message=f"no money for {CANARY}"),
        Fault("body", body=json.dumps({"error": {"code": 400, "message": f"key {CANARY}"}})),
        Fault("body", body=json.dumps({"error": CANARY})),
        Fault("body", body=f"<html>{CANARY}</html>"),
        Fault("redirect", location=f"https://example.com/{CANARY}"),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}-{fault.body[:12]}",
)
def test_a_key_that_an_endpoint_repeats_in_an_error_is_masked_everywhere(
    server: TestServer, caplog: pytest.LogCaptureFixture, tmp_path: Path, fault: Fault
) -> None:
    caplog.set_level(logging.DEBUG)
    server.faults = lambda call: fault
    seen = []
    config = written(server, "on_error = 'null'\n")
    with smartsql.connect(config=config) as con:
        _impatient(con)
        filled(con, rows=3)
        table = "FROM smart_llm(reviews, review, task := 'tone')"
        rows = con.execute(f"SELECT answer, error {table}").fetchall()
        assert all(answer is None and error for answer, error in rows)
        seen += [str(rows), listed(con, "ledger"), con.reports[-1].to_json()]
    with smartsql.connect(config=config, on_error="error") as con:
        _impatient(con)
        with pytest.raises(SmartSQLError) as raised:
            filled(con, rows=3).execute(STATEMENT)
        seen.append(told(raised.value))
    seen += [logged(caplog), everything_below(tmp_path).decode("latin-1")]
    everything = "\n".join(seen)
    assert CANARY not in everything
    assert CANARY[:20] not in everything


def _impatient(con: Any) -> None:
    """Give up on an endpoint that fails after a moment."""
    for name in ("big", "small"):
        backend = con.engine.backends[name]
        backend._policy = backend._health._policy = backend._budget._policy = QUICK


def test_a_key_that_an_endpoint_repeats_in_answers_is_kept_with_none_of_them(
    server: TestServer, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    server.answer = lambda model, prompt: f"The header was Authorization: Bearer {CANARY}, sir."
    with smartsql.connect(config=written(server)) as con:
        filled(con, rows=4)
        answers = con.execute("SELECT DISTINCT smart_llm(review) FROM reviews").fetchall()
        assert answers == [("The header was Authorization: Bearer [key], sir.",)]
        with pytest.raises(SmartSQLError) as raised:
            con.execute(
                'SELECT smart_extract(review, \'{"a": "INTEGER"}\') FROM reviews'
            ).fetchall()
        seen = told(raised.value) + listed(con, "ledger")
    assert CANARY not in seen + logged(caplog)
    assert CANARY.encode() not in everything_below(tmp_path)


class _Parrot(BaseHTTPRequestHandler):
    """Repeats the key in every place of a response that is not its body."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        key = self.headers["authorization"].removeprefix("Bearer ")
        choice = {"message": {"content": "good"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 1}
        body = json.dumps({"choices": [choice], "model": f"gpt {key}", "usage": usage}).encode()
        self.send_response(200, f"OK {key}")
        for name in ("x-request-id", "Set-Cookie", "Server-Timing", "openai-organization"):
            self.send_header(name, f"a={key}")
        self.send_header("Content-Type", f"application/json; charset={key}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Not to stderr."""


@contextmanager
def parrot() -> Iterator[str]:
    """The address of a server that repeats keys in headers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Parrot) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}/v1"
        finally:
            running.shutdown()
            thread.join()


def test_a_key_that_an_endpoint_repeats_in_headers_and_model_names_is_logged_and_kept_nowhere(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    with parrot() as url:
        Path("smartsql.toml").write_text(FILE.format(url=url))
        with smartsql.connect(config="smartsql.toml") as con:
            answers = filled(con, rows=4).execute(STATEMENT).fetchall()
            assert {answer for _, answer in answers} == {"good"}
            report = con.reports[-1].to_json()
            assert "gpt [key]" in report
    assert CANARY not in logged(caplog) + report
    assert CANARY.encode() not in everything_below(tmp_path)


def test_what_a_users_own_program_logs_of_the_same_libraries_is_logged_as_before(
    server: TestServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with smartsql.connect(config=written(server)) as con:
        filled(con, rows=2).execute(STATEMENT).fetchall()
    caplog.clear()
    logging.getLogger("openai._base_client").debug("mine")
    logging.getLogger("httpx2").info("mine too")
    assert [record.getMessage() for record in caplog.records] == ["mine", "mine too"]


@pytest.mark.parametrize("work", ["no such model", "on a spent budget", "wrong task", "bad SQL"])
def test_no_error_shows_the_key_in_its_text_its_causes_or_the_variables_of_its_frames(
    server: TestServer, work: str
) -> None:
    if work == "no such model":
        server.models = {"another"}
    budget = {"budget_usd": 1e-9} if work == "on a spent budget" else {}
    task = "nope" if work == "wrong task" else "tone"
    column = "nothing" if work == "bad SQL" else "review"
    with smartsql.connect(config=written(server), **budget) as con:
        filled(con, rows=5)
        with pytest.raises((SmartSQLError, duckdb.Error)) as raised:
            con.execute(f"SELECT smart_llm({column}, 0.1, task := '{task}') FROM reviews")
            con.fetchall()
    account = told(raised.value)
    assert CANARY not in account
    assert "engine" in account or work == "bad SQL"  # variables of our frames are in it


def test_errors_on_the_way_to_a_backend_do_not_show_the_key(server: TestServer) -> None:
    config = written(server)
    text = Path(config).read_text()
    for change in ("stream = true", "max_tokens = 'many'", "max_completion_tokens = 0"):
        broken = text.replace("reference = true", f"reference = true\nparameters = {{ {change} }}")
        Path(config).write_text(broken)
        with pytest.raises(ConfigError) as raised:
            smartsql.connect(config=config)
        account = told(raised.value)
        assert "__init__: api_key = <key from" in account  # the frame that held the key is in it
        assert CANARY not in account


def test_the_command_line_prints_and_writes_no_key(
    server: TestServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = written(server)
    make = "CREATE TABLE t AS SELECT 'a' || i AS review, i AS id FROM range(40) r(i)"
    ask = "SELECT smart_llm(review, task := 'tone') FROM t"
    common = ["--config", config, "-c", make, "-c", ask]
    assert main([*common, "--dry-run"]) == 0
    assert not server.calls
    for report in ("report.json", "report.html"):
        assert main([*common, "--report", report]) == 0
    assert main(["verify", "report.json"]) == 0
    server.api_key = "another"  # the endpoint now quotes the wrong key that it was given
    assert main(["--config", config, "-c", "SELECT smart_llm('x' || i) FROM range(3) r(i)"]) == 1
    out, err = capfd.readouterr()
    assert "Incorrect API key provided: [key]" in err
    assert CANARY not in out + err
    assert CANARY.encode() not in everything_below(tmp_path)


def test_statements_that_make_secrets_are_shown_without_them(
    server: TestServer, capfd: pytest.CaptureFixture[str]
) -> None:
    config = written(server)
    for number, statement in enumerate(
        (
            f"CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN '{CANARY}')",
            f"CREATE SECRET s (TYPE http BEARER_TOKEN '{CANARY}')",
            f"CREATE SECRET s (TYPE http, bearer_token = '{CANARY}', NOPE 1)",
            f"CREATE SECRET s (TYPE http, BEARER_TOKEN $x${CANARY}$x$ oops",
        )
    ):
        code = main(["--config", config, "--dry-run", "-c", statement])
        assert code == (0 if number == 0 else 1)
        out, err = capfd.readouterr()
        assert CANARY not in out + err
        assert err


def test_the_shell_keeps_no_line_with_a_key_in_its_history() -> None:
    readline = pytest.importorskip("readline")
    readline.clear_history()
    typed = ["SELECT 1;", f"CREATE SECRET s (TYPE http, BEARER_TOKEN '{CANARY}');", "SELECT 2;"]
    lines = iter(typed)

    def read(prompt: str) -> str:
        line = next(lines, None)
        if line is None:
            raise EOFError
        readline.add_history(line)
        return line

    shell = Shell(None, "box", yes=True, read=read)  # type: ignore[arg-type]
    assert [shell._next() for _ in typed] == typed
    kept = [readline.get_history_item(i + 1) for i in range(readline.get_current_history_length())]
    assert kept == ["SELECT 1;", "SELECT 2;"]
    readline.clear_history()
