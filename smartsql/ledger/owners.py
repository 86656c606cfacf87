"""Who holds a claim: names that tell machine and process, and whether the process still runs."""

from __future__ import annotations

import os
import socket
import uuid
from contextlib import suppress
from pathlib import Path


def new_owner() -> str:
    """A name for claims that tells whose they are: machine, process, its birth, and a number.

    The birth tells a process from a later one with the same number, as in a container that is
    started again: there every process has the number of the one before it.
    """
    pid = os.getpid()
    return f"{socket.gethostname()}:{pid}:{_birth(pid)}{uuid.uuid4().hex}"


def is_here(owner: str) -> bool:
    """Whether an owner is a process of this machine."""
    return _parts(owner)[0] == socket.gethostname()


def is_alive(owner: str) -> bool:
    """Whether the process behind claims may still run; True for those on other machines."""
    host, pid, mark = _parts(owner)
    if host != socket.gethostname() or not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    birth, told = _birth(int(pid)), mark.rpartition("-")[0]
    return not (birth and told and birth != f"{told}-")


def ended_in_order(owner: str) -> bool:
    """Whether the machine has run on since the owner began, so that nothing it wrote is lost."""
    told = _parts(owner)[2].rpartition("-")[0].partition("-")[0]
    return bool(told) and told == _boot()


def _parts(owner: str) -> tuple[str, str, str]:
    """Machine, process and the rest of an owner's name."""
    rest, _, mark = owner.rpartition(":")
    host, _, pid = rest.rpartition(":")
    return host, pid, mark


def _boot() -> str:
    """A part of the number that Linux gives to each of its starts; empty elsewhere."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    return ""


def _birth(pid: int) -> str:
    """When a process began, as "boot-ticks-"; empty where the system does not tell."""
    with suppress(OSError, IndexError):
        # the name of a process, in brackets, may hold anything
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return f"{_boot()}-{fields[19]}-"
    return ""
