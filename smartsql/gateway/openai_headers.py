"""Headers of requests to an endpoint, whatever the environment says about another one."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit


def own_headers(base_url: str, api_key: str) -> dict[str, Any]:
    """Headers that undo what the client library takes from the environment for other hosts.

    What OPENAI_CUSTOM_HEADERS and the like say about an OpenAI account, perhaps a key, is nobody
    else's business.
    """
    if (urlsplit(base_url).hostname or "").endswith("openai.com"):
        return {}
    from openai import Omit

    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    names = {line.partition(":")[0].strip() for line in lines if ":" in line}
    undone: dict[str, Any] = {name: Omit() for name in names}
    undone |= {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()}
    key = {n: f"Bearer {api_key}" for n in names if n.lower() == "authorization"}
    return undone | key
