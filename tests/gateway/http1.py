"""HTTP/1.1 for the test server: enough of it, and a way to break off anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class HTTPRequest:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests are answered one after the other."""

    def __init__(
        self,
        handle: Callable[[Connection, HTTPRequest], None],
        connections: set[Connection],
    ) -> None:
        self._handle = handle
        self._connections = connections
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
            pairs = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            stop = end + 4 + int(headers.get("content-length", 0))
            if len(self._buffer) < stop:
                return
            body, self._buffer = self._buffer[end + 4 : stop], self._buffer[stop:]
            method, path, _ = first.split(" ", 2)
            self._handle(self, HTTPRequest(method, path, headers, body))

    @property
    def is_open(self) -> bool:
        return not self._transport.is_closing()

    def write(self, data: bytes) -> bool:
        """Send; False when nobody is there to read it."""
        if not self.is_open:
            return False
        self._transport.write(data)
        return True

    def abort(self) -> None:
        self._transport.abort()

    def respond(
        self,
        status: int,
        body: str,
        headers: dict[str, str] | None = None,
        content_type: str = "application/json",
    ) -> bool:
        data = body.encode()
        return self.write(_head(status, len(data), headers or {}, content_type) + data)

    def start_body(self, body: str) -> bytes:
        """Send the head and half of the body; returns the other half."""
        data = body.encode()
        half = len(data) // 2
        self.write(_head(200, len(data), {}, "application/json") + data[:half])
        return data[half:]

    async def endless_body(self, start: str, pause_s: float) -> int:
        """Send a body that never ends until nobody reads it any more; the bytes sent.

        As fast as it is read, or a byte each `pause_s`.
        """
        head = b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\n"
        self.write(head + b"Transfer-Encoding: chunked\r\n\r\n" + _chunk(start.encode()))
        more = b" " if pause_s else b" " * 65_536
        sent = 0
        while self.write(_chunk(more)):
            sent += len(more)
            await asyncio.sleep(pause_s)
            while self.is_open and self._transport.get_write_buffer_size() > 2**18:
                await asyncio.sleep(0.001)
        return sent


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _head(status: int, length: int, headers: dict[str, str], content_type: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {content_type}", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
