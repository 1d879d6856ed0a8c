"""What receives spans in an operator's house, reduced to what it is sent."""

from __future__ import annotations

import asyncio
import gzip
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@dataclass
class Receiver:
    """An address for OTEL_EXPORTER_OTLP_ENDPOINT, and what came there, decompressed; without `answers` for nothing."""

    answers: bool = True
    url: str = ""
    received: bytes = b""
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take requests until their connection ends."""
        try:
            while head := await self._head(reader):
                headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                body = await reader.readexactly(int(headers["content-length"]))
                self.received += gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
                self.asked.set()
                if self.answers:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _head(self, reader: asyncio.StreamReader) -> str:
        return (await reader.readuntil(b"\r\n\r\n")).decode()


@asynccontextmanager
async def receiving(*, answers: bool = True) -> AsyncGenerator[Receiver]:
    """Receive until the block is left."""
    receiver = Receiver(answers)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield receiver
