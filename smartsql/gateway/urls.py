"""Which endpoints may be talked to."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from smartsql.errors import ConfigError


def is_loopback(url: str) -> bool:
    """Whether a URL points to this machine: localhost, 127.0.0.0/8 or ::1."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked_base_url(url: str, model: str) -> str:
    """The URL without a trailing slash.

    Raises:
        ConfigError: not a web address, a password or key within it, or one that would carry
            prompts and keys over the network unencrypted.
    """
    problem = None
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if any(mark in url for mark in "@?#"):
        # the value is not repeated: it may hold a secret
        raise ConfigError(
            f"base_url of model {model!r} has a user, a query or a fragment in it. Give the plain "
            f"address, and the key by the name of an environment variable in api_key_env."
        )
    if "://" not in url:
        problem = "it has no scheme (https://) and must look like https://host/v1"
    elif parts.scheme not in ("http", "https") or not host:
        problem = "it must look like https://host/v1"
    elif parts.scheme == "http" and not is_loopback(url):
        problem = "plain http is only allowed to this machine (localhost, 127.0.0.1); use https"
    if problem:
        raise ConfigError(f"base_url of model {model!r} is {url!r}: {problem}.")
    return url.rstrip("/")
