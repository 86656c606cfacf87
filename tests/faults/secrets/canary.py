"""A key that must be seen nowhere, and ways to look for it."""

from __future__ import annotations

import os
import pprint
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.server import TestServer

CANARY = "sk-canary-7f3a9c51d2e84b60a1"
VARIABLE = "SHOP_MODEL_KEY"
PROMPT = "Patient 4711, born 1961, has a rare condition of the left knee."

FILE = """
store = "kept/answers.sqlite"
seed = 3
[[models]]
name = "big"
base_url = "{url}"
api_key_env = "SHOP_MODEL_KEY"
reference = true
input_usd_per_mtok = 10
output_usd_per_mtok = 10
[[models]]
name = "small"
base_url = "{url}"
api_key_env = "SHOP_MODEL_KEY"
input_usd_per_mtok = 0.3
output_usd_per_mtok = 0.3
verification = 1
[[models]]
name = "learner"
kind = "learned"
[tasks.tone]
prompt = "Tone? {{input}}"
labels = ["good", "bad"]
"""
STATEMENT = (
    "SELECT id, smart_llm(review, 0.2, 0.9, task := 'tone') AS tone FROM reviews ORDER BY id"
)


_HERE = Path(__file__).parent


def cleaned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment with the key and no other settings."""
    for name in [name for name in os.environ if name.upper().startswith("SMARTSQL_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, CANARY)


@contextmanager
def shop() -> Iterator[TestServer]:
    """A server that lets in the key alone."""

    def said(model: str, prompt: str) -> str:
        return "good" if len(prompt) % 3 else "bad"

    with TestServer(answer=said, api_key=CANARY) as running:
        yield running


def written(server: TestServer, more: str = "") -> str:
    Path("smartsql.toml").write_text(more + FILE.format(url=server.base_url))
    return "smartsql.toml"


def filled(con: Any, rows: int = 60) -> Any:
    con.execute(
        "CREATE OR REPLACE TABLE reviews AS SELECT i AS id, repeat('x', i % 17) || i AS review "
        f"FROM range({rows}) t(i)"
    )
    return con


def listed(con: Any, table: str) -> str:
    """All that smart_reports() and the like show."""
    return str(con.sql(f"FROM smart_{table}()").to_arrow_table().to_pylist())


def everything_below(folder: Path) -> bytes:
    """All files, with their names."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return b"\n".join(str(path).encode() + b"\n" + path.read_bytes() for path in files)


def shown(value: Any) -> str:
    """What is seen of an object by those who print it, or its attributes, or theirs, and so on."""
    seen: set[int] = set()
    texts: list[str] = []

    def visit(one: Any, depth: int) -> None:
        if id(one) in seen or depth > 12 or isinstance(one, type) or (callable(one) and depth > 1):
            return
        seen.add(id(one))
        if isinstance(one, str | bytes):
            texts.append(str(one))
            return
        texts.append(repr(one) + str(one))
        if one.__class__.__module__ == "os":
            return  # the environment itself
        if isinstance(one, dict):
            for pair in list(one.items()):
                visit(pair, depth + 1)
        elif isinstance(one, list | tuple | set | frozenset):
            for item in list(one):
                visit(item, depth + 1)
        attributes = dict(getattr(one, "__dict__", {}))
        for kind in type(one).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                attributes[name] = getattr(one, name, None)
        if attributes:
            texts.append(pprint.pformat(attributes))
        visit(attributes, depth + 1)

    visit(value, 0)
    return "\n".join(texts)


def told(error: BaseException) -> str:
    """An exception with all its causes, arguments, and the variables of all frames it passed."""
    seen = []
    cause: BaseException | None = error
    while cause is not None:
        account = traceback.TracebackException.from_exception(cause, capture_locals=True)
        frames = [
            f for f in account.stack if Path(f.filename).parent != _HERE
        ]  # tests know the key
        seen += [
            f"{f.name}: {name} = {value}"
            for f in frames
            for name, value in (f.locals or {}).items()
        ]
        seen.append(repr(cause.args) + repr(vars(cause)) + str(cause))
        cause = cause.__cause__ or cause.__context__
    return "\n".join(seen)


def logged(caplog: pytest.LogCaptureFixture) -> str:
    return caplog.text + "".join(str(vars(record)) for record in caplog.records)
