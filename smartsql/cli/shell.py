"""The shell: statements typed at a terminal, one after the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
import platformdirs

from smartsql.cli.output import FORMATS, keep_types, say
from smartsql.cli.statements import run_statement, statements
from smartsql.errors import CancelledError, SmartSQLError
from smartsql.printable import discreet

if TYPE_CHECKING:
    from smartsql.api import Connection

PROMPT, MORE = "smartsql> ", "     ...> "
HISTORY_LINES = 10_000
HELP = """Statements end with ; and may have several lines. Ctrl-C cancels one, Ctrl-D leaves.
  .help          this text
  .mode [NAME]   how results are printed: {modes}
  .quit          leave"""

_TOKEN = re.compile(
    r"""'(?:[^']|'')*('|\Z)|"(?:[^"]|"")*("|\Z)|(\$\w*\$).*?(?:\3|(\Z))|--[^\n]*|/\*.*?(?:\*/|(\Z))""",
    re.DOTALL,
)


def is_complete(text: str) -> bool:
    """Whether a text ends with a semicolon that is in no string and no comment."""
    code, at = [], 0
    for token in _TOKEN.finditer(text):
        opening = token[0][0]
        code.append(text[at : token.start()])
        code.append(" " if opening in "-/" else "x")
        at = token.end()
        if opening in "'\"" and not (token[1] or token[2]):
            return False
        if at == len(text) and (token[4] is not None or token[5] is not None):
            return False
    code.append(text[at:])
    return "".join(code).rstrip().endswith(";")


class Shell:
    """One session at a terminal.

    Args:
        style: one of `output.FORMATS`.
        yes: never ask before a statement, whatever it costs.
        read: gives the next line for a prompt; raises EOFError at the end.
    """

    def __init__(
        self,
        connection: Connection,
        style: str,
        *,
        yes: bool,
        read: Callable[[str], str] = input,
    ) -> None:
        self.connection, self.style, self.yes = connection, style, yes
        self._read = read

    def run(self) -> None:
        """Read and run statements until the user leaves; no error ends it."""
        keep_types(self.connection)
        click.echo('smartsql: SQL with smart_llm(...); ".help" for help.', err=True)
        with _history():
            while (text := self._next()) is not None:
                if text.lstrip().startswith("."):
                    if not self._command(text.split()):
                        return
                else:
                    self._run(text)

    def _next(self) -> str | None:
        """The next text to run; None at the end of the input."""
        lines: list[str] = []
        while True:
            try:
                line = self._read(MORE if lines else PROMPT)
            except KeyboardInterrupt:
                click.echo(err=True)
                lines = []
                continue
            except EOFError:
                click.echo(err=True)
                return None
            _forget_secrets(line)
            if not lines and line.lstrip().startswith("."):
                return line
            if lines or line.strip():
                lines.append(line)
            text = "\n".join(lines)
            if is_complete(text):
                return text

    def _command(self, words: list[str]) -> bool:
        """A line that begins with a point; False to leave."""
        name, arguments = words[0], words[1:]
        if name in (".quit", ".exit"):
            return False
        if name == ".mode" and len(arguments) == 1 and arguments[0] in FORMATS:
            self.style = arguments[0]
        elif name == ".mode" and not arguments:
            click.echo(self.style)
        elif name == ".help":
            click.echo(HELP.format(modes=", ".join(FORMATS)))
        else:
            known = f".mode takes one of {', '.join(FORMATS)}" if name == ".mode" else ".help"
            click.echo(f"error: cannot do {' '.join(words)!r}; see {known}", err=True)
        return True

    def _run(self, text: str) -> None:
        """Run statements; what goes wrong is said, and the rest of the line is left out."""
        try:
            for statement in statements(self.connection, text):
                run_statement(self.connection, statement, self.style, yes=self.yes)
        except (KeyboardInterrupt, CancelledError, click.Abort):
            click.echo("interrupted; the answers that came back are kept.", err=True)
        except SmartSQLError as error:
            say(f"error: {error}")
        except click.ClickException as error:
            error.show()


def _forget_secrets(line: str) -> None:
    """Keep no line in the history that holds a key: it would lie in a file for good."""
    if discreet(line) == line:
        return
    with suppress(ImportError):
        import readline

        for at in reversed(range(readline.get_current_history_length())):
            if readline.get_history_item(at + 1) == line:
                readline.remove_history_item(at)
                return


@contextmanager
def _history() -> Iterator[None]:
    """Lines of earlier sessions at hand, and those of this one kept; where the system can."""
    try:
        import readline
    except ImportError:  # not on every platform
        yield
        return
    path = Path(platformdirs.user_state_dir("smartsql", appauthor=False)) / "history"
    with suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(HISTORY_LINES)
    try:
        yield
    finally:
        with suppress(OSError):  # a folder that cannot be written to: only this is lost
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            readline.write_history_file(path)
