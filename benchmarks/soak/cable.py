"""A cable between a caller and a server, to be cut: both ends then see a reset, as after a crash."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from benchmarks.soak.browser import reset

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

BLOCK_BYTES = 64 * 1024


class Cable:
    """Passes bytes on, both ways, until it is cut. Knows nothing of what they mean, encryption included."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._ends: list[asyncio.StreamWriter] = []
        self.port = 0

    def cut(self) -> None:
        """Reset all connections; new ones are taken."""
        for end in self._ends:
            reset(end)
        self._ends.clear()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port, limit=BLOCK_BYTES)
        except OSError:
            reset(writer)
            return
        self._ends += [writer, far_writer]
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pass_on(reader, far_writer))
                both.create_task(_pass_on(far_reader, writer))
        finally:
            for end in (writer, far_writer):
                end.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while block := await reader.read(BLOCK_BYTES):
            writer.write(block)
            await writer.drain()
        if writer.can_write_eof() and not writer.is_closing():
            writer.write_eof()


@asynccontextmanager
async def cable(target_port: int) -> AsyncGenerator[Cable]:
    """Lay a cable."""
    laid = Cable(target_port)
    server = await asyncio.start_server(laid.carry, "127.0.0.1", 0, limit=BLOCK_BYTES)
    try:
        async with server:
            laid.port = server.sockets[0].getsockname()[1]
            yield laid
            laid.cut()
    finally:
        laid.cut()
