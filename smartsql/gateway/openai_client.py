"""The HTTP client behind the models of an OpenAI-compatible endpoint."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from smartsql.gateway.openai_body import ENCODINGS, MOST_BYTES, read_bounded
from smartsql.gateway.openai_headers import NO_KEY, bearer, keep_quiet, own_headers
from smartsql.gateway.urls import is_loopback

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from smartsql.gateway.key import Key

CONNECT_S = 10.0
KEEPALIVE_S = 30.0


def connect(
    base_url: str,
    key: Key | None,
    *,
    timeout_s: float,
    connections: int,
    most_bytes: int = MOST_BYTES,
) -> AsyncOpenAI:
    """A client whose own retries are off: they would be tries that nobody accounts for.

    Takes a second the first time, for the libraries that are loaded.

    Args:
        connections: most at once.
        most_bytes: of a response.
    """
    import httpx2
    from openai import AsyncOpenAI, DefaultAioHttpClient

    timeout = httpx2.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s))
    limits = httpx2.Limits(max_connections=connections, keepalive_expiry=KEEPALIVE_S)
    keep_quiet()
    return AsyncOpenAI(
        base_url=base_url,
        api_key=NO_KEY,
        default_headers={"Accept-Encoding": ", ".join(ENCODINGS), **own_headers(base_url)},
        max_retries=0,
        timeout=timeout,
        http_client=DefaultAioHttpClient(
            auth=bearer(key),
            limits=limits,
            timeout=timeout,
            follow_redirects=False,  # never to carry key and prompt to another host
            trust_env=not is_loopback(base_url),  # no proxy to this machine
            event_hooks={"response": [partial(read_bounded, most_bytes=most_bytes)]},
        ),
    )
