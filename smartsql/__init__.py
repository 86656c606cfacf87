"""Language models over SQL tables, with a statistical guarantee and at the least cost.

`SELECT smart_llm(review, 0.1, 0.95) FROM reviews` answers every row so that, with probability at
least 0.95, at most a tenth of the rows differ from what the reference model would have said.

The root exports what a user types. Heavy libraries are loaded when they are first needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from smartsql.errors import (
    AnswerFormatError,
    BatchPendingError,
    BudgetError,
    CancelledError,
    ConfigError,
    GatewayError,
    LedgerError,
    ParameterError,
    QueryError,
    RateLimitError,
    SmartSQLError,
    UnknownPriceError,
    UnplannableCallError,
    VerificationError,
)

if TYPE_CHECKING:
    from smartsql.api import connect, register
    from smartsql.config import Model, Settings
    from smartsql.preview import Preview
    from smartsql.reports.report import Report

__version__ = "0.1.0"

_LAZY = {
    "Model": "smartsql.config",
    "Preview": "smartsql.preview",
    "Report": "smartsql.reports.report",
    "Settings": "smartsql.config",
    "connect": "smartsql.api",
    "register": "smartsql.api",
}

__all__ = [
    "AnswerFormatError",
    "BatchPendingError",
    "BudgetError",
    "CancelledError",
    "ConfigError",
    "GatewayError",
    "LedgerError",
    "Model",
    "ParameterError",
    "Preview",
    "QueryError",
    "RateLimitError",
    "Report",
    "Settings",
    "SmartSQLError",
    "UnknownPriceError",
    "UnplannableCallError",
    "VerificationError",
    "connect",
    "register",
]


def __getattr__(name: str) -> Any:
    """Load what a name needs when it is first used."""
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'smartsql' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
