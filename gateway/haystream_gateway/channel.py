"""The channels to the service. Where its certificates change, new calls take new ones, and open streams keep theirs."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc.aio
from grpc_health.v1 import health_pb2_grpc

from haystream.v1 import chat_pb2, chat_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

SERVICE_NAME = chat_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name

# What is refused before anything was said goes to another address by itself: a service that drains or still loads, or a
# connection that is lost. With the service's first word gRPC stops trying, so nothing is said twice.
RETRIES = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}

# Calls go to all addresses of a `dns:///` name in turn.
SERVICE_CONFIG: dict[str, Any] = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [{"name": [{"service": SERVICE_NAME}], "retryPolicy": RETRIES}],
}

OPTIONS = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    # A request that is larger than this would not be tried again: the default is less than most images.
    ("grpc.per_rpc_retry_buffer_size", 8 << 20),
    ("grpc.enable_http_proxy", 0),  # gRPC would ask http_proxy even for the loopback
    # gRPC measures the line and opens its window to megabytes, which a slow browser would leave in this process.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Names are asked again after a lost connection, no more often than this; gRPC's own 30 s would miss a new address.
    ("grpc.dns_min_time_between_resolutions_ms", 2_000),
    # A service that froze or lost its network is noticed within 25 s. The keepalive timeout alone never fires.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
)

# Channels to one address share a connection otherwise, and with it the number of calls that the service takes on one.
OF_ITS_OWN = ("grpc.use_local_subchannel_pool", 1)

# Streams on a channel that was replaced may take so long; who is cut off then comes back.
RETIREMENT_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Line:
    """What is called, and the credentials that it is called with.

    Two connections: `chat` takes the streams, which may be as many as the service takes on one. What is answered at
    once, `unary` and `health`, has another, and never waits for a stream to end.
    """

    credentials: grpc.ChannelCredentials | None
    channels: tuple[grpc.aio.Channel, grpc.aio.Channel]
    chat: chat_pb2_grpc.ChatServiceStub
    unary: chat_pb2_grpc.ChatServiceStub
    health: health_pb2_grpc.HealthStub

    async def close(self, grace_seconds: float | None = None) -> None:
        """Cancel what is still open after a time."""
        await asyncio.gather(*(channel.close(grace_seconds) for channel in self.channels))


class Lines:
    """The line that new calls take, and those before it until their calls are over."""

    def __init__(
        self, target: str, credentials: Callable[[], grpc.ChannelCredentials | None], server_name: str = ""
    ) -> None:
        self._target = target
        self._credentials = credentials
        self._options = (*OPTIONS, ("grpc.ssl_target_name_override", server_name)) if server_name else OPTIONS
        self._retiring: set[asyncio.Task[None]] = set()
        self._line = self._opened(credentials())

    def current(self) -> Line:
        """Return the line for a call that begins now."""
        credentials = self._credentials()
        if credentials is not self._line.credentials:
            task = asyncio.create_task(self._line.close(RETIREMENT_SECONDS), name="channel retires")
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
            self._line = self._opened(credentials)
        return self._line

    async def close(self) -> None:
        """Cancel what is still open."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await self._line.close()

    def _opened(self, credentials: grpc.ChannelCredentials | None) -> Line:
        streams, unary = self._channel(credentials), self._channel(credentials, OF_ITS_OWN)
        stub = chat_pb2_grpc.ChatServiceStub
        return Line(credentials, (streams, unary), stub(streams), stub(unary), health_pb2_grpc.HealthStub(unary))

    def _channel(self, credentials: grpc.ChannelCredentials | None, *more: tuple[str, int]) -> grpc.aio.Channel:
        options = (*self._options, *more)
        if credentials is None:
            return grpc.aio.insecure_channel(self._target, options=options)
        return grpc.aio.secure_channel(self._target, credentials, options=options)


@asynccontextmanager
async def lines_to(
    target: str, credentials: Callable[[], grpc.ChannelCredentials | None], server_name: str = ""
) -> AsyncGenerator[Lines]:
    """Hold the channels to the service; each connects with its first call."""
    lines = Lines(target, credentials, server_name)
    try:
        yield lines
    finally:
        await lines.close()
