"""Rows in the pages of a SQLite file, found page by page, without the tree that leads to them.

A tree of which an inner page is damaged leads nowhere below it, although the rows are all there.
Every page says by itself what it is and where its cells are. Pages that are not in use any more
may hold rows that were deleted; the caller takes them as older versions.

Source: "Database File Format" of the SQLite documentation, sections 1.6 (b-tree pages), 1.7
(overflow pages) and 2.1 (record format).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

PAGE = 4096
TABLE_LEAF, INDEX_LEAF, INDEX_INNER = 13, 10, 2
_MOST_COLUMNS = 64
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
"""Serial types of integers and their bytes."""


class Row(NamedTuple):
    """A record.

    Attributes:
        kind: of the page it was on: `TABLE_LEAF`, `INDEX_LEAF` or `INDEX_INNER`.
        number: its row number, on a leaf of a table; else 0.
    """

    kind: int
    number: int
    values: tuple[object, ...]


def rows(raw: bytes) -> Iterator[Row]:
    """All records that can be read in a file's pages; what makes no sense is passed over."""
    for start in range(0, len(raw) - PAGE + 1, PAGE):
        head = start + (100 if start == 0 else 0)
        kind = raw[head]
        if kind not in (TABLE_LEAF, INDEX_LEAF, INDEX_INNER):
            continue
        first = head + (12 if kind == INDEX_INNER else 8)
        n = min(int.from_bytes(raw[head + 3 : head + 5], "big"), (start + PAGE - first) // 2)
        for cell in range(n):
            at = start + int.from_bytes(raw[first + 2 * cell : first + 2 * cell + 2], "big")
            try:
                yield _cell(raw, kind, at + (4 if kind == INDEX_INNER else 0), start + PAGE)
            except (ValueError, IndexError, struct.error):
                continue


def _cell(raw: bytes, kind: int, at: int, end: int) -> Row:
    """The record of one cell, which begins at `at` on a page that ends at `end`."""
    size, at = _number(raw, at)
    number = 0
    if kind == TABLE_LEAF:
        number, at = _number(raw, at)
    if not 0 < size <= len(raw):
        raise ValueError("a record larger than the file")
    return Row(kind, number, _record(_payload(raw, kind, at, size, end)))


def _payload(raw: bytes, kind: int, at: int, size: int, end: int) -> bytes:
    """The bytes of a record, those on overflow pages included."""
    most = PAGE - 35 if kind == TABLE_LEAF else (PAGE - 12) * 64 // 255 - 23
    if size <= most:
        found = raw[at : at + size]
        if at + size > end:
            raise ValueError("a record that goes beyond its page")
        return found
    least = (PAGE - 12) * 32 // 255 - 23
    here = least + (size - least) % (PAGE - 4)
    here = here if here <= most else least
    parts, left = [raw[at : at + here]], size - here
    following = int.from_bytes(raw[at + here : at + here + 4], "big")
    while left > 0:
        page = (following - 1) * PAGE
        if following < 1 or page + PAGE > len(raw):
            raise ValueError("an overflow page that is missing")
        parts.append(raw[page + 4 : page + 4 + min(left, PAGE - 4)])
        left -= PAGE - 4
        following = int.from_bytes(raw[page : page + 4], "big")
    return b"".join(parts)


def _record(raw: bytes) -> tuple[object, ...]:
    """The values of a record."""
    end, at = _number(raw, 0)
    if not 1 <= end <= len(raw):
        raise ValueError("a record without a head")
    types = []
    while at < end:
        kind, at = _number(raw, at)
        types.append(kind)
    if len(types) > _MOST_COLUMNS:
        raise ValueError("too many columns")
    values, at = [], end
    for kind in types:
        value, at = _value(raw, kind, at)
        values.append(value)
    if at != len(raw):
        raise ValueError("a record of another length than its head says")
    return tuple(values)


def _value(raw: bytes, kind: int, at: int) -> tuple[object, int]:
    """One value and where the next one begins."""
    if kind in (0, 8, 9):
        return {0: None, 8: 0, 9: 1}[kind], at
    if kind in _INTEGERS:
        size = _INTEGERS[kind]
        return int.from_bytes(raw[at : at + size], "big", signed=True), at + size
    if kind == 7:
        return struct.unpack(">d", raw[at : at + 8])[0], at + 8
    if kind < 12:
        raise ValueError("a type that does not exist")
    size = (kind - 12) // 2
    part = raw[at : at + size]
    return (part.decode() if kind % 2 else part), at + size


def _number(raw: bytes, at: int) -> tuple[int, int]:
    """A number of up to nine bytes, seven bits in each but the ninth; where it ends."""
    value = 0
    for _ in range(8):
        byte = raw[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return value << 8 | raw[at], at + 1
