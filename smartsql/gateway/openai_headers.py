"""Headers of requests to an endpoint, whatever the environment says about another one."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Generator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from smartsql.gateway.loop import THREAD_NAME

if TYPE_CHECKING:
    import httpx2

    from smartsql.gateway.key import Key

NO_KEY = "none"
"""Sent to endpoints that need no key, and known to the client library instead of one."""
_THEIRS = ("openai", "openai._base_client", "httpx2", "aiohttp.client")
"""Loggers of the libraries below."""


def own_headers(base_url: str) -> dict[str, Any]:
    """Headers that undo what the client library takes from the environment for other hosts.

    What OPENAI_CUSTOM_HEADERS and the like say about an OpenAI account, perhaps a key, is nobody
    else's business.
    """
    host = urlsplit(base_url).hostname or ""
    if host == "openai.com" or host.endswith(".openai.com"):
        return {}
    from openai import Omit

    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    names = {line.partition(":")[0].strip() for line in lines if ":" in line}
    undone: dict[str, Any] = {name: Omit() for name in names}
    undone |= {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()}
    return undone | {n: f"Bearer {NO_KEY}" for n in names if n.lower() == "authorization"}


def bearer(key: Key | None) -> httpx2.Auth | None:
    """Puts the key into each request as it leaves; None where there is none.

    The client library itself never learns the key, so none of its attributes, options and
    variables hold it.
    """
    if key is None:
        return None
    import httpx2

    reveal = key.reveal

    class Bearer(httpx2.Auth):
        def auth_flow(
            self, request: httpx2.Request
        ) -> Generator[httpx2.Request, httpx2.Response, None]:
            request.headers["Authorization"] = f"Bearer {reveal()}"
            yield request

    return Bearer()


def keep_quiet() -> None:
    """Have the libraries below say nothing about our requests but warnings.

    At the level DEBUG they log parts of what an endpoint answers, which may quote prompt or key.
    What a user's own program does with them is logged as before. Nor do they complain of prompts
    of more than a megabyte, which would be errors where warnings are.
    """
    warnings.filterwarnings("ignore", "Sending a large body", ResourceWarning)
    for name in _THEIRS:
        logging.getLogger(name).addFilter(_is_not_ours)


def _is_not_ours(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.threadName != THREAD_NAME
