"""What came of a try at a network model, as the attempt that is kept of it."""

from __future__ import annotations

from smartsql.gateway import Attempt, Request, beginning
from smartsql.gateway.openai_meter import Meter
from smartsql.gateway.openai_wire import Failure, Reply


def delivered(
    meter: Meter, request: Request, reply: Reply, seconds: float, *, judged: bool
) -> Attempt:
    """The attempt at which the model finished.

    Args:
        judged: confidence and scores were asked for.
    """
    prompt_tokens, completion_tokens = meter.tokens_of(request, reply)
    return Attempt(
        request.index,
        True,
        reply.status,
        text=reply.text,
        confidence=reply.confidence if judged else None,
        scores=reply.scores if judged else None,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        cost_usd=meter.cost_of(request, reply),
        seconds=seconds,
        served_by=reply.served_by,
        error=None if reply.status == "ok" else beginning(reply.written),
    )


def failed(
    meter: Meter, request: Request, failure: Failure, seconds: float, error: str, *, final: bool
) -> Attempt:
    """The attempt at which it did not."""
    return Attempt(
        request.index,
        final,
        failure.status,
        cost_usd=meter.cost_of(request, failure),
        seconds=seconds,
        error=error,
        retryable=failure.retryable,
    )
