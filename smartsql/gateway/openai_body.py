"""Reading what an endpoint sends, within bounds: a body may never end, or be a bomb."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx2

MOST_BYTES = 16 * 2**20
"""Of a response, decompressed. An answer of 16,000 tokens with log probabilities has a quarter."""
ENCODINGS = ("gzip", "deflate")
"""Compressions that are asked for; a piece of another one might not be bounded when it is undone.
"""


class EndlessBodyError(ValueError):
    """A response has more bytes than any answer, or a compression that was not asked for."""


async def read_bounded(response: httpx2.Response, most_bytes: int = MOST_BYTES) -> None:
    """Read the body, as a hook of the HTTP client that runs before the client reads it itself.

    The time is bounded by the try's own timeout.

    Raises:
        EndlessBodyError: it is longer than `most_bytes`.
    """
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding and encoding not in (*ENCODINGS, "identity"):
        raise EndlessBodyError(
            f"its answer is compressed by {encoding[:20]!r}, which was not asked"
        )
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > most_bytes:
            raise EndlessBodyError(f"its answer has more than {most_bytes:,} bytes")
        parts.append(part)
    # the client looks here first; a response has no other way to take a body that was read
    response._content = b"".join(parts)
