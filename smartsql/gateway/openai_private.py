"""What an endpoint says, without the key and without the prompts that it may repeat."""

from __future__ import annotations

import json
from dataclasses import replace

from smartsql.gateway import whole
from smartsql.gateway.key import Key, masked
from smartsql.gateway.openai_wire import Failure, Reply
from smartsql.printable import plain

QUOTATION = 24
"""Characters of a prompt in an endpoint's words that count as a quotation."""
MESSAGE_CHARACTERS = 200
"""Longest part of an endpoint's own words that goes into an error."""


def scrubbed(failure: Failure, key: Key | None, prompt: str) -> Failure:
    """The failure with an error that is short, one line, and without key and prompt.

    Parts of both that are quoted go too, as an endpoint may show only how a prompt begins.
    """
    error = failure.error
    for private in (prompt, json.dumps(prompt)):
        if len(private) > 3:
            error = error.replace(private, "[prompt]")
    # what is looked at is bounded: it is searched for in the prompt, which may be long
    error = error[: 4 * MESSAGE_CHARACTERS]
    if key is not None:
        error = key.masked(error)
    error = masked(error, prompt, "[prompt]", QUOTATION)
    error = plain(" ".join(whole(error).split()))
    if len(error) > MESSAGE_CHARACTERS:
        error = error[: MESSAGE_CHARACTERS - 3] + "..."
    return replace(failure, error=error)


def without_key(reply: Reply, key: Key | None) -> Reply:
    """The reply of an endpoint that may say the key, which then is kept with no answer."""
    if key is None:
        return reply
    texts = (reply.text or "", reply.written, reply.served_by or "")
    if not any(map(key.is_in, texts)):
        return reply
    return replace(
        reply,
        text=None if reply.text is None else key.masked(reply.text),
        written=key.masked(reply.written),
        served_by=None if reply.served_by is None else key.masked(reply.served_by),
    )
