"""HTTP/1.1 over one raw socket: a POST out, a chunked body in."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import cast

from benchmarks.readers.stream import Arrivals, Incomplete

LAST_CHUNK = b"\r\n0\r\n\r\n"
HEAD_END = b"\r\n\r\n"
NO_GOODBYE = struct.pack("ii", 1, 0)  # SO_LINGER on, for no time at all: what is closed then is reset


class Http1Connection(asyncio.Protocol):
    """A client's connection with at most one answer on its way."""

    def __init__(self) -> None:
        self.arrivals: Arrivals | None = None
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by birth

    def post(self, path: str, body: bytes) -> Arrivals:
        """Send a request, whole."""
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self._tail = b""
        self.arrivals = Arrivals()
        self._transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return self.arrivals

    def data_received(self, data: bytes) -> None:
        """Record what came; only the end is looked for."""
        if self.arrivals is None:
            return
        self.arrivals.add(time.monotonic_ns(), data)
        self._tail = (
            (self._tail + data)[-len(LAST_CHUNK) :] if len(data) < len(LAST_CHUNK) else data[-len(LAST_CHUNK) :]
        )
        if self._tail == LAST_CHUNK:
            self.arrivals.finish()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who still waits."""
        if self.arrivals is not None:
            self.arrivals.finish(Incomplete("the connection was lost"))

    def stop_reading(self) -> None:
        """Leave what comes in the socket."""
        self._transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        self._transport.resume_reading()

    def abort(self) -> None:
        """Close the socket at once."""
        self._transport.abort()

    def reset(self) -> None:
        """Break the connection off, as a crash, a phone without network or a proxy does: a reset, and no goodbye."""
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_GOODBYE)
        self._transport.abort()


def body_blocks(blocks: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Return the chunks of the body, complete ones only, and when each came. Raises Incomplete for an error."""
    result: list[tuple[int, bytes]] = []
    data, head_seen = b"", False
    for arrived_ns, block in blocks:
        data += block
        if not head_seen:
            head, separator, data = data.partition(HEAD_END)
            if not separator:
                data = head
                continue
            head_seen = True
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                raise Incomplete(f"HTTP: {head.decode(errors='replace')} {data.decode(errors='replace')}")
        data = _cut(arrived_ns, data, result)
    return result


def _cut(arrived_ns: int, data: bytes, result: list[tuple[int, bytes]]) -> bytes:
    """Cut complete chunks off; return what is left."""
    at = 0
    while (line_end := data.find(b"\r\n", at)) >= 0:
        start = line_end + 2
        end = start + int(data[at:line_end], 16)
        if end + 2 > len(data):
            break
        if end > start:
            result.append((arrived_ns, data[start:end]))
        at = end + 2
    return data[at:]
