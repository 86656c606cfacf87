"""Which endpoints may be talked to."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from smartsql.errors import ConfigError

_HOST = re.compile(r"(?!.*\.\.)[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|[0-9a-f:.]*:[0-9a-f:.]*")
"""A name in ASCII, or an address of IP version 6."""
_PLAIN = re.compile(r"[!-~]+")


def is_loopback(url: str) -> bool:
    """Whether a URL points to this machine: localhost, 127.0.0.0/8 or ::1."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked_base_url(
    url: str, model: str, *, allow_http: bool = False, allowed_hosts: Sequence[str] = ()
) -> str:
    """The URL without a trailing slash.

    Args:
        allow_http: whether prompts and keys may go over the network unencrypted.
        allowed_hosts: as `checked_hosts` returns them; none allows all.

    Raises:
        ConfigError: not a web address, a password or key within it, one that would carry
            prompts and keys over the network unencrypted, or a host that is not allowed.
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
    elif not _PLAIN.fullmatch(url) or not _HOST.fullmatch(host):
        # what is read differently by two readers of addresses could lead past the checks
        problem = "it has characters that no address has; write a name in its ASCII form (xn--)"
    elif parts.scheme == "http" and not (allow_http or is_loopback(url)):
        problem = (
            "plain http is only allowed to this machine (localhost, 127.0.0.1); use https, or set "
            "allow_http = true on the model if its prompts and key may be read on the way"
        )
    elif allowed_hosts and not _is_allowed(host, allowed_hosts):
        problem = f"its host is not among allowed_hosts ({', '.join(allowed_hosts)})"
    if problem:
        raise ConfigError(f"base_url of model {model!r} is {url!r}: {problem}.")
    return url.rstrip("/")


def checked_hosts(hosts: Sequence[str]) -> tuple[str, ...]:
    """The hosts of an allow-list in one spelling.

    Raises:
        ValueError: an entry that is no host, which would allow nothing or be taken for more.
    """
    found = []
    for given in hosts:
        host = given.strip().casefold().removeprefix("[").removesuffix("]").rstrip(".")
        if not _HOST.fullmatch(host.removeprefix("*.")):
            raise ValueError(
                f"allowed_hosts has {given!r}, which is no name of a host; write the name alone, "
                f"such as api.openai.com, or *.openai.azure.com for all hosts below it"
            )
        found.append(host)
    return tuple(found)


def _is_allowed(host: str, allowed: Sequence[str]) -> bool:
    host = host.casefold().rstrip(".")
    return any(host.endswith(a[1:]) if a.startswith("*.") else host == a for a in allowed)


def is_within(url: str, scope: str) -> bool:
    """Whether a URL is an address or lies below it: another host that begins alike does not."""
    return f"{url.rstrip('/')}/".startswith(f"{scope.rstrip('/')}/")
