"""The command line: answers to stdout; progress, warnings and the bill to stderr.

`smartsql [DATABASE] -c SQL` runs statements; `batches`, `demo`, `forget`, `replay`, `rescue` and
`verify` are commands of their own. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 budget reached,
4 answers are under way in batches.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from smartsql.cli.output import say
from smartsql.errors import BatchPendingError, BudgetError, CancelledError, SmartSQLError

DONE, FAILED, USAGE, BUDGET, PENDING, INTERRUPTED = 0, 1, 2, 3, 4, 130
COMMANDS = ("batches", "demo", "forget", "replay", "rescue", "verify")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given.pop(0) if given and given[0] in COMMANDS else "query"
    module = importlib.import_module(f"smartsql.cli.{name}")
    command: click.Command = getattr(module, name)
    program = "smartsql" if name == "query" else f"smartsql {name}"
    try:
        code = command.main(args=given, prog_name=program, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return USAGE if isinstance(error, click.UsageError) else FAILED
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt, CancelledError):
        click.echo("interrupted; the answers that came back are kept.", err=True)
        return INTERRUPTED
    except SmartSQLError as error:
        is_pending = isinstance(error, BatchPendingError)
        say(str(error) if is_pending else f"error: {error}")
        return PENDING if is_pending else BUDGET if isinstance(error, BudgetError) else FAILED
    except BrokenPipeError:  # the reader of our answers went away
        sys.stderr.close()
        return DONE
    return code if isinstance(code, int) else DONE
