"""The sockets of the gateway: a frame leaves at once, and what a browser does not take waits elsewhere."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from haystream.v1 import chat_pb2
from tests.conftest import browsed
from tests.scripted import STARTED, Scripted, behind_gateway, text

if TYPE_CHECKING:
    import grpc.aio

    from tests.conftest import Browser, Served

LETTERS = 4096
SMALL_BUFFER_BYTES = 1024
LITTLE_BYTES = 512 * 1024  # some 140 KiB: the windows of the call and of its connection, and what is being sent


def called_on(browser: Browser) -> socket.socket:
    """Return a copy of the one socket on which the gateway is called."""
    connections = psutil.Process().net_connections("tcp")
    established = [one for one in connections if one.status == psutil.CONN_ESTABLISHED]
    (descriptor,) = [one.fd for one in established if one.laddr.port == browser.gateway.port]
    return socket.socket(fileno=os.dup(descriptor))


async def test_a_small_frame_is_not_kept_back_by_the_kernel(fake: Served) -> None:
    """Which would wait for up to 40 ms whether there is more."""
    async with browsed(fake.address) as browser:
        await browser.http.get("/livez")
        with called_on(browser) as connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@dataclass
class Talkative(Scripted):
    """Says more than anybody reads, and counts what was taken from it."""

    taken_bytes: int = 0

    async def Chat(  # type: ignore[override]  # as the service's own
        self, request: chat_pb2.ChatRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        await context.write(chat_pb2.ChatResponse(event=STARTED))
        self.asked.set()
        while True:
            await context.write(chat_pb2.ChatResponse(event=text("x" * LETTERS)))
            self.taken_bytes += LETTERS

    async def stands_still(self) -> int:
        """Wait until nothing more is taken; return how much was. No event tells that nothing happens."""
        taken = -1
        while taken != self.taken_bytes:
            taken = self.taken_bytes
            await asyncio.sleep(0.3)
        return taken


async def test_what_a_slow_browser_leaves_stays_with_the_service() -> None:
    """Not in the gateway: its window to the service is small, however fast the line between them is."""
    service = Talkative()
    async with behind_gateway(service) as browser:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
            slow.connect(("127.0.0.1", browser.gateway.port))
            slow.sendall(b"GET /chat?query=q HTTP/1.1\r\nHost: x\r\n\r\n")
            await service.asked.wait()
            taken = await service.stands_still()
            with called_on(browser) as connection:
                (left_to_kernel,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))
            assert 0 < taken - left_to_kernel < LITTLE_BYTES
