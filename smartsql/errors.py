"""Every error a user can meet. A message says what failed, the value seen and the next step."""

from __future__ import annotations

import time


class SmartSQLError(Exception):
    """Base of all errors of this package."""


class ParameterError(SmartSQLError, ValueError):
    """A value outside its range: delta, gamma, a price, a count."""


class ConfigError(SmartSQLError):
    """The configuration cannot be used: unknown key, no reference model, missing price."""


class MissingExtraError(ConfigError):
    """A model or a command needs an optional package that is not installed."""

    def __init__(self, package: str, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'smartsql[{extra}]'"
        )
        self.package = package
        self.extra = extra


class UnknownPriceError(ConfigError):
    """Nobody knows what a model costs, so no saving can be promised."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"no price is known for model {model!r}. Set input_usd_per_mtok and "
            f"output_usd_per_mtok in its [[models]] entry (0 for a model that is free)."
        )
        self.model = model


class QueryError(SmartSQLError):
    """The SQL cannot be planned or run."""


class UnplannableCallError(QueryError):
    """A smart call that cannot be planned where it stands.

    Attributes:
        call: its text.
        clause: where it stands.
        reason: why it cannot be planned there.
        rewrite: what to write instead.
    """

    def __init__(
        self,
        call: str,
        clause: str,
        rewrite: str | None = None,
        reason: str = "its rows are not known before execution",
    ) -> None:
        rewrite = rewrite or f"Compute it in a subquery and use its alias in {clause}."
        super().__init__(f"cannot plan {call} inside {clause}: {reason}. {rewrite}")
        self.call = call
        self.clause = clause
        self.reason = reason
        self.rewrite = rewrite


class IncompleteSetError(QueryError):
    """The engine answered before it had delivered all rows of a call; nothing was spent."""


class BudgetError(SmartSQLError):
    """The money for a statement, a session or a day is used up; all that was paid for is kept.

    Attributes:
        cap: "statement", "session" or "day".
        budget_usd: that limit.
        spent_usd: what counts against it.
        missing: calls that were not made.
    """

    def __init__(
        self,
        budget_usd: float,
        spent_usd: float,
        missing: int,
        next_usd: float = 0.0,
        *,
        cap: str = "statement",
        held_usd: float = 0.0,
        day: str = "",
    ) -> None:
        name, spent, wayout = _CAPS[cap]
        held = f" and ${held_usd:.6g} set aside by other processes" if held_usd > 0 else ""
        super().__init__(
            f"{name} of ${budget_usd:.6g} reached: ${spent_usd:.6g} {spent}{day and ' ' + day}"
            f"{day and ' (UTC)'}{held}, {missing} {'call' if missing == 1 else 'calls'} left "
            f"unasked, the next of which may cost up to ${next_usd:.3g} (less if its parameters "
            f"limit max_completion_tokens). Every paid answer is kept; run the statement again "
            f"{wayout} and it goes on from here."
        )
        self.cap = cap
        self.budget_usd = budget_usd
        self.spent_usd = spent_usd
        self.missing = missing


_CAPS = {
    "statement": ("budget", "spent", "with a larger budget (--budget or budget_usd)"),
    "session": (
        "session budget",
        "spent in this session",
        "with a larger session_budget_usd, or in a new session,",
    ),
    "day": (
        "daily budget",
        "spent by all processes with this store on",
        "on another day, or with a larger daily_budget_usd,",
    ),
}
"""For each cap its name, what was spent of it, and the way out."""


class CancelledError(SmartSQLError):
    """The statement was interrupted; answers that came back are kept."""


class GatewayError(SmartSQLError):
    """A model did not answer. Has the model's name and whether asking again may help."""

    def __init__(self, message: str, *, model: str, retryable: bool = False) -> None:
        super().__init__(message)
        self.model = model
        self.retryable = retryable


class RateLimitError(GatewayError):
    """The endpoint refused for its limits until the retries were used up."""


class AnswerFormatError(GatewayError):
    """The endpoint answered with something that is not an answer."""


class BatchPendingError(SmartSQLError):
    """Answers are still under way in batches; nothing failed, and nothing is paid twice.

    Attributes:
        model: whose batches.
        calls: calls that are in them, of which `done` have an outcome.
        until: when the last of them ends at the latest; seconds since 1970, None where unknown.
    """

    def __init__(self, model: str, calls: int, done: int, until: float | None) -> None:
        latest = ""
        if until is not None:
            latest = f" (at the latest {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(until))})"
        super().__init__(
            f"{calls:,} answers of the model {model!r} are under way in batches, {done:,} of them "
            f"ready. Run the statement again when they are done{latest}: it goes on from here and "
            f"pays nothing twice. `smartsql batches` shows how far they are; a larger "
            f"batch_wait_s has the statement wait longer."
        )
        self.model = model
        self.calls = calls
        self.done = done
        self.until = until


class LedgerError(SmartSQLError):
    """The store of paid answers cannot be read or written."""


class VerificationError(SmartSQLError):
    """A report does not hold against the ledger."""
