"""The error of a statement whose reference gave a row no usable answer."""

from __future__ import annotations

from smartsql.errors import AnswerFormatError, GatewayError, RateLimitError
from smartsql.gateway import DELIVERED


def reference_error(model: str, status: str, message: str) -> GatewayError:
    """What to raise.

    Args:
        model: the reference.
        status: of its last attempt, or of the answer that was kept.
        message: why there is no usable answer, as a phrase.
    """
    kind = {"rate_limited": RateLimitError, "ok": AnswerFormatError}.get(
        status, AnswerFormatError if status in DELIVERED else GatewayError
    )
    return kind(
        f"the reference model {model!r} gave no usable answer to a row: {message}. All paid "
        f'answers are kept. Set on_error = "null" to have such rows answered by NULL with the '
        f"reason in the error column.",
        model=model,
        retryable=status not in (*DELIVERED, "rejected"),
    )
