"""The composition: settings in, a serving address out, and an orderly end on the way out."""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn

from haystream_gateway.app import gateway_app
from haystream_gateway.connections import BoundedHeads

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from structlog.typing import FilteringBoundLogger

    from haystream_gateway.settings import Settings
    from haystream_gateway.streams import Streams

# After the last frame a connection may still have bytes to send; longer than this nobody waits for them.
GOODBYE_SECONDS = 2


class AddressInUse(Exception):
    """The address to serve on is taken, or cannot be had."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that serves."""

    port: int
    streams: Streams


class _Server(uvicorn.Server):
    """Uvicorn, which says when it serves and leaves the signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serves = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.serves.set()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@asynccontextmanager
async def serving(settings: Settings, log: FilteringBoundLogger) -> AsyncGenerator[Gateway]:
    """Serve until the block is left, then end all streams. Raises AddressInUse, or CredentialsUnusable."""
    app, streams = gateway_app(settings, log)
    listener = _bind(settings.gateway_listen, settings.slow_reader_seconds)
    if settings.is_open_relay:
        log.warning("whoever reaches this address calls the service as the gateway", address=settings.gateway_listen)
    if settings.is_for_strangers:
        log.info("a service that asks nobody who they are is not called from here", address=settings.gateway_listen)
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,  # its lines go where all others do
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            http=BoundedHeads,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            timeout_graceful_shutdown=GOODBYE_SECONDS,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listener]), name="gateway")
    await server.serves.wait()
    try:
        yield Gateway(listener.getsockname()[1], streams)
    finally:
        streams.drain()
        server.should_exit = True
        await task


def _bind(address: str, slow_reader_seconds: float) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, int(port)), family=family, backlog=2048)
    except OSError:
        raise AddressInUse(f"HAYSTREAM_GATEWAY_LISTEN: {address} is taken or cannot be bound") from None
    # Every connection inherits what follows. A reader who takes nothing for so long is cut off by the kernel, and its
    # stream freed; whatever it was to be told could not reach it. Only Linux has that.
    if sys.platform == "linux":
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(slow_reader_seconds * 1000))
    # The event loop sets it on sockets that name TCP as their protocol, which this one
    # does not; without it the kernel keeps a small frame back for up to 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
