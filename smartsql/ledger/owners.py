"""Who holds a claim: names that tell machine and process, and whether the process still runs."""

from __future__ import annotations

import os
import socket
import uuid


def new_owner() -> str:
    """A name for claims that tells whose they are: machine, process, and a number of its own."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"


def is_alive(owner: str) -> bool:
    """Whether the process behind claims may still run; True for those on other machines."""
    host, _, rest = owner.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname() or not rest.isdigit():
        return True
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
