"""HTTP as a browser speaks it, over one raw connection that can be read slowly, or be reset."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.readers.http1 import NO_GOODBYE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

BUFFER_BYTES = 16 * 1024
OK = 200


@dataclass(frozen=True, slots=True)
class Frame:
    """A server-sent event."""

    event: str
    data: str
    id: str

    @property
    def value(self) -> Any:
        """The data, as JSON."""
        return json.loads(self.data)


class CutOff(Exception):
    """The connection broke before the answer was complete."""


class Answer:
    """An answer whose head has come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int, head: str) -> None:
        self.status = status
        self._reader = reader
        self._writer = writer
        self._is_chunked = "transfer-encoding: chunked" in head.lower()

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes. Raises CutOff."""
        try:
            if not self._is_chunked:
                yield await self._reader.read(-1)
                return
            while size := int(await self._reader.readline() or b"-", 16):
                yield (await self._reader.readexactly(size + 2))[:size]
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError, OSError, ValueError) as error:
            raise CutOff(type(error).__name__) from None

    async def body(self) -> Any:
        """Return the body as JSON; None where there is none. Raises CutOff."""
        body = b"".join([block async for block in self.blocks()])
        return json.loads(body) if body else None

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """Yield the events, one by one. Raises CutOff."""
        rest, fields = b"", dict[str, str]()
        async for block in self.blocks():
            *lines, rest = (rest + block).split(b"\n")
            for line in map(bytes.decode, lines):
                name, _, value = line.partition(": ")
                if line and name:
                    fields[name] = value
                elif not line and fields:
                    yield Frame(fields.get("event", ""), fields.get("data", ""), fields.get("id", ""))
                    fields = {}

    def reset(self) -> None:
        """Break the connection off, without a goodbye."""
        reset(self._writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection off, as a crash or a lost network does."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_GOODBYE)
    writer.transport.abort()


@asynccontextmanager
async def asking(
    port: int, method: str, path: str, headers: Mapping[str, str], body: Any = None
) -> AsyncGenerator[Answer]:
    """Ask, and read the answer's head; hang up at the end. Raises ConnectionError, and CutOff without an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=BUFFER_BYTES)
    try:
        payload = b"" if body is None else json.dumps(body).encode()
        told = {
            "Host": f"127.0.0.1:{port}",
            "Connection": "close",
            "Content-Type": "application/json",
            "Content-Length": str(len(payload)),
            **headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
        writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + payload)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise CutOff(f"before the head of an answer: {type(error).__name__}") from None
        yield Answer(reader, writer, int(head.split(" ", 2)[1]), head)
    finally:
        writer.transport.abort()
