"""The network between a browser and the gateway, which can be cut in the middle of an answer."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import AsyncGenerator

CHUNK_BYTES = 64 * 1024

# Closing sends RST at once, as a machine does which knows nothing of the connection.
RESET = struct.pack("ii", 1, 0)


class CuttingProxy:
    """Hands on what comes, until it is told to cut. What connects later is served again.

    `halt_inside` is a text of the gateway's: where it comes by, half of it is let through, and then nothing.
    """

    def __init__(self, target_port: int) -> None:
        self.halt_inside: bytes | None = None
        self.has_halted = asyncio.Event()
        self.is_open = asyncio.Event()  # while it is not, nothing is let through to the browser
        self.is_open.set()
        self._target_port = target_port
        self._browsers: set[StreamWriter] = set()
        self._gateways: set[StreamWriter] = set()
        self._links: set[asyncio.Task[None]] = set()
        self._keeps_gateways = False

    def close(self) -> None:
        """Close the connections, as a proxy does that is stopped."""
        for browser in self._browsers:
            browser.close()

    def reset(self) -> None:
        """Cut the connections without a goodbye."""
        for browser in self._browsers:
            _reset(browser)

    def reset_unnoticed(self) -> None:
        """Cut the connections so that the gateway goes on writing into the void."""
        self._keeps_gateways = True
        self.reset()

    async def link(self, from_browser: StreamReader, to_browser: StreamWriter) -> None:
        """Serve one connection of a browser."""
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        self._browsers.add(to_browser)
        from_gateway, to_gateway = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._gateways.add(to_gateway)
        ways = [
            asyncio.create_task(self._up(from_browser, to_gateway)),
            asyncio.create_task(self._down(from_gateway, to_browser)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._browsers.discard(to_browser)
            to_browser.close()
            if not self._keeps_gateways:
                self._gateways.discard(to_gateway)
                _reset(to_gateway)
            self._links.discard(task)

    async def end(self) -> None:
        """Cut what is left, and wait until nothing is."""
        for writer in [*self._browsers, *self._gateways]:
            _reset(writer)
        await asyncio.gather(*self._links)

    async def _up(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(CHUNK_BYTES):
                writer.write(data)
                await writer.drain()

    async def _down(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(CHUNK_BYTES):
                await self.is_open.wait()
                before, found, _ = data.partition(self.halt_inside or data + b"?")
                writer.write(before + found[: len(found) // 2])
                await writer.drain()
                if found:
                    self.halt_inside = None
                    self.has_halted.set()
                    await reader.read()  # whatever else comes


@asynccontextmanager
async def cutting(target_port: int) -> AsyncGenerator[tuple[str, CuttingProxy]]:
    """Put a proxy before a port of this machine; yield its address."""
    proxy = CuttingProxy(target_port)
    server = await asyncio.start_server(proxy.link, "127.0.0.1", 0)
    async with server:
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", proxy
        finally:
            server.close()
            await proxy.end()


def _reset(writer: StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
