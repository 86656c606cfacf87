"""Notes of what was sent, which outlive the process that sent it.

A claim says that its owner may ask; that a call was handed over to be sent is noted here, before
it is, in a file beside the ledger, one for each owner. A note is eight bytes written in place,
since a transaction for each call would cost more than the call's own handling. The file ends with
the step whose calls it notes, when all that came of them is in the ledger. So a file whose owner
is gone lists the calls that were perhaps in flight: all that are noted and not recorded.

A file holds a head with the owner's name, then sections: a head (identity, run, number of calls),
the 16-byte keys of the calls, and for each call eight bytes: zero, or, from the moment it is
handed over, what it may cost at most in billionths of a dollar, plus one.

The notes are with the operating system at once, and outlive any end of the process. A machine that
loses its power may lose the last of them; then calls of the last moments are not told as lost.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

_HEAD = b"smartsql calls sent 1\n"
_HEAD_BYTES = 256
_SECTION = struct.Struct("<8sqqq")
_MAGIC = b"section\n"
_KEY_BYTES = 16
_SLOT_BYTES = 8
_NANO = 1e9
_MOST = 2**62


@dataclass(frozen=True, slots=True)
class Noted:
    """Calls of one section that were handed over: their keys, and what each may have cost."""

    identity: int
    run: int
    calls: tuple[tuple[bytes, float], ...]


class Notes:
    """The notes of one owner; safe for threads. The file is made with the first section.

    Attributes:
        path: of the file.
    """

    def __init__(self, ledger: str, owner: str) -> None:
        self.path = f"{ledger}-sent-{owner.rpartition(':')[2].rpartition('-')[2]}"
        self._owner = owner
        self._lock = Lock()
        self._file: int | None = None
        self._end = 0

    def section(self, identity: int, run: int, keys: Sequence[bytes]) -> Section:
        """Room for notes on these calls.

        Raises:
            OSError: there is no room for them.
        """
        head = _SECTION.pack(_MAGIC, identity, run, len(keys))
        slots = len(head) + _KEY_BYTES * len(keys)
        with self._lock:
            if self._file is None:
                flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
                self._file = os.open(self.path, flags, 0o600)
                start = (_HEAD + self._owner.encode()).ljust(_HEAD_BYTES, b"\n")
                self._end = _written(self._file, start, 0)
            start_at = self._end
            # the room is taken now, so that a note can hardly fail later
            raw = b"".join((head, *keys, bytes(_SLOT_BYTES * len(keys))))
            self._end += _written(self._file, raw, start_at)
        return Section(self, start_at + slots)

    def mark(self, at: int, usd: Sequence[float]) -> None:
        """Note calls from a place in the file on; nothing once the notes have ended.

        Raises:
            OSError: it cannot be written.
        """
        raw = struct.pack(f"<{len(usd)}q", *[min(int(u * _NANO), _MOST) + 1 for u in usd])
        with self._lock:  # the number of a closed file may be another file's by now
            if self._file is not None:
                _written(self._file, raw, at)

    def close(self) -> None:
        """End the notes: what came of all calls is in the ledger."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None
                with suppress(FileNotFoundError):
                    os.unlink(self.path)


class Section:
    """Where the calls of one section are noted."""

    def __init__(self, notes: Notes, slots_at: int) -> None:
        self._notes = notes
        self._slots_at = slots_at

    def mark(self, first: int, usd: Sequence[float]) -> None:
        """Note that calls are handed over, from the position `first` on, and their worst costs."""
        self._notes.mark(self._slots_at + _SLOT_BYTES * first, usd)


def _written(file: int, raw: bytes, at: int) -> int:
    """Write all at a place; the number of bytes."""
    done = 0
    while done < len(raw):
        done += os.pwrite(file, raw[done:], at + done)
    return done


def files(ledger: str) -> dict[str, str]:
    """The files of notes beside a ledger, by owner; what is no such file is left out."""
    place = Path(ledger)
    found = {}
    for path in place.parent.glob(f"{_literal(place.name)}-sent-*"):
        with suppress(OSError, UnicodeDecodeError), path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            if head.startswith(_HEAD) and len(head) == _HEAD_BYTES:
                found[head[len(_HEAD) :].rstrip(b"\n").decode()] = str(path)
    return found


def _literal(name: str) -> str:
    """A file's name as a pattern that it alone matches."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def read(path: str) -> Iterator[Noted]:
    """The calls noted in a file, section by section; a section that was cut off ends it."""
    with Path(path).open("rb") as file:
        file.seek(_HEAD_BYTES)
        while len(head := file.read(_SECTION.size)) == _SECTION.size:
            magic, identity, run, n = _SECTION.unpack(head)
            keys, slots = file.read(_KEY_BYTES * n), file.read(_SLOT_BYTES * n)
            if magic != _MAGIC or len(slots) < _SLOT_BYTES * n:
                return
            worst = struct.unpack(f"<{n}q", slots)
            yield Noted(
                identity,
                run,
                tuple(
                    (keys[k * _KEY_BYTES : (k + 1) * _KEY_BYTES], (usd - 1) / _NANO)
                    for k, usd in enumerate(worst)
                    if usd > 0
                ),
            )
