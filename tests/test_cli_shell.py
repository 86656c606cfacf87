"""The shell at a real pseudo-terminal, and asking before dear statements."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from smartsql.cli import main
from smartsql.cli.shell import is_complete
from tests.test_cli import CALL, CONFIG, TABLE

SLOW = """
import time
def slow(texts):
    time.sleep(0.002 * len(texts))
    return ["good"] * len(texts)
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{os.getcwd()}{os.pathsep}{tmp_path}")
    monkeypatch.setenv("SMARTSQL_STORE", str(tmp_path / "answers.sqlite"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("smartsql.toml").write_text(CONFIG)


class Terminal:
    """The program at a pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        self._fd, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "smartsql", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_controlling,  # noqa: PLW1509 - no other way to a terminal with Ctrl-C
        )
        os.close(theirs)
        self.said = ""

    def until(self, pattern: str, timeout_s: float = 30.0) -> str:
        """What is said up to a pattern."""
        deadline = time.monotonic() + timeout_s
        while (found := re.search(pattern, self.said)) is None:
            assert time.monotonic() < deadline, f"{pattern!r} not in {self.said!r}"
            if select.select([self._fd], [], [], 0.1)[0]:
                self.said += os.read(self._fd, 65536).decode()
        before, self.said = self.said[: found.end()], self.said[found.end() :]
        return before

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def interrupt(self, pattern: str) -> None:
        """Press Ctrl-C at a prompt until a pattern is said.

        One press can be lost: Python's input() looks at signals when its select() is interrupted,
        and a signal between the printed prompt and that select() waits for the next key.
        """
        for _ in range(30):
            self.type("\x03")
            with suppress(AssertionError):
                self.until(pattern, 1.0)
                return
        raise AssertionError(f"{pattern!r} not in {self.said!r} after 30 times Ctrl-C")

    def ends(self) -> int:
        return self._process.wait(30)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)


def _controlling() -> None:
    """Make the terminal on standard input the controlling one, so that Ctrl-C is a signal."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


Start = Callable[..., Terminal]


@pytest.fixture
def start(_folder: None) -> Iterator[Start]:
    """Starts programs at terminals of their own, and ends those that a failed test leaves."""
    with ExitStack() as stack:

        def started(*arguments: str) -> Terminal:
            return stack.enter_context(closing(Terminal(*arguments)))

        yield started


def test_the_shell_answers_goes_on_after_errors_and_shows_the_bill(start: Start) -> None:
    terminal = start("-csv")
    terminal.until("smartsql> ")
    terminal.type("SELECT 1 AS a,\n")
    terminal.until(r"\.\.\.> ")
    terminal.type("'x;' AS b;\n")
    assert "a,b\r\n1,x;\r\n" in terminal.until("smartsql> ")
    terminal.type("SELECT nothing;\n")
    assert "error: " in terminal.until("smartsql> ")
    terminal.type(TABLE + "\n")
    terminal.until("smartsql> ")
    terminal.type("SELECT count(smart_llm(review)) AS n FROM r;\n")
    said = terminal.until("smartsql> ")
    assert "n\r\n2000\r\n" in said
    assert "smart: 2,000 rows, $" in said
    terminal.type(".mode json\n")
    terminal.until("smartsql> ")
    terminal.type("SELECT 2 AS b;\n")
    assert '{"b":2}' in terminal.until("smartsql> ")
    terminal.type(".mode no\n")
    assert "error: cannot do '.mode no'" in terminal.until("smartsql> ")
    terminal.type(".help\n")
    assert ".quit" in terminal.until("smartsql> ")
    terminal.type(".quit\n")
    assert terminal.ends() == 0
    history = Path("state/smartsql/history")
    assert "SELECT nothing;" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_ctrl_c_ends_the_statement_and_not_the_shell(start: Start) -> None:
    Path("slowly.py").write_text(SLOW)
    Path("smartsql.toml").write_text(CONFIG.replace("tests.models:big", "slowly:slow"))
    terminal = start("-csv")
    terminal.until("smartsql> ")
    terminal.type("SELECT 1 AS\n")
    terminal.until(r"\.\.\.> ")
    terminal.interrupt("smartsql> ")  # the line that was begun
    terminal.type("SELECT smart_llm('row ' || i, 0, 0.9) FROM range(1500) t(i);\n")
    terminal.until("of 1,500 asked")
    terminal.type("\x03")
    terminal.until("interrupted; the answers that came back are kept.")
    terminal.until("smartsql> ")
    terminal.type("SELECT 40 + 2 AS n;\n")
    assert "n\r\n42\r\n" in terminal.until("smartsql> ")
    terminal.type("\x04")
    assert terminal.ends() == 0


def test_a_dear_statement_is_asked_about_at_a_terminal(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMARTSQL_CONFIRM_ABOVE_USD", "0.0001")
    terminal = start("-csv")
    terminal.until("smartsql> ")
    terminal.type(TABLE + "\n")
    terminal.until("smartsql> ")
    count = "SELECT count(smart_llm(review)) AS n FROM r;\n"
    terminal.type(count)
    asked = terminal.until(r"Run it\? \[y/N\]")
    assert "2,000 rows" in asked
    assert "above confirm_above_usd = 0.0001" in asked
    terminal.type("n\n")
    assert "not run; nothing was asked." in terminal.until("smartsql> ")
    terminal.type(count)
    terminal.until(r"Run it\? \[y/N\]")
    terminal.type("y\n")
    assert "n\r\n2000\r\n" in terminal.until("smartsql> ")
    terminal.type(count)  # paid for: nothing to ask about
    assert "Run it" not in terminal.until("smartsql> ")
    terminal.type(".quit\n")
    assert terminal.ends() == 0


def test_without_a_terminal_a_dear_statement_is_an_error_that_names_both_ways_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMARTSQL_CONFIRM_ABOVE_USD", "0.0001")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["-csv", "-c", TABLE + CALL]) == 2
    err = capsys.readouterr().err
    assert "--yes" in err
    assert "SMARTSQL_CONFIRM_ABOVE_USD" in err
    assert main(["-csv", "-c", TABLE + "EXPLAIN " + CALL]) == 0
    assert main(["-csv", "-c", TABLE + CALL, "--yes"]) == 0
    assert "smart: 2,000 rows, $" in capsys.readouterr().err
    monkeypatch.setenv("SMARTSQL_CONFIRM_ABOVE_USD", "100")
    assert main(["-csv", "-c", TABLE + CALL.replace("0.1", "0.2")]) == 0
    assert main(["-csv", "-c", "SELECT count(*) AS n FROM smart_ledger()"]) == 0


def test_a_dry_run_in_a_shell_is_wrong_usage(start: Start) -> None:
    terminal = start("--dry-run")
    terminal.until("--dry-run needs SQL")
    assert terminal.ends() == 2


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("SELECT 1;", True),
        ("SELECT 1; ", True),
        ("SELECT 1; -- done", True),
        ("SELECT 1; /* done */", True),
        ("SELECT 1", False),
        ("", False),
        ("SELECT ';", False),
        ("SELECT ';'", False),
        ("SELECT ';';", True),
        ("SELECT 'it''s;", False),
        ('SELECT ";', False),
        ("SELECT $$;", False),
        ("SELECT $$;$$;", True),
        ("SELECT $a$ $$; $a$;", True),
        ("-- only a comment;", False),
        ("SELECT 1 /* ;", False),
        ("SELECT 1 -- ;", False),
    ],
)
def test_a_statement_ends_with_a_semicolon_outside_strings_and_comments(
    text: str, complete: bool
) -> None:
    assert is_complete(text) is complete
