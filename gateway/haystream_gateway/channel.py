"""The channel to the service. Where its certificates change, new calls take a new one, and open streams keep theirs."""

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

# Streams on a channel that was replaced may take so long; who is cut off then comes back.
RETIREMENT_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Line:
    """A channel with what is called over it, and the credentials that it was opened with."""

    channel: grpc.aio.Channel
    credentials: grpc.ChannelCredentials | None
    chat: chat_pb2_grpc.ChatServiceStub
    health: health_pb2_grpc.HealthStub


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
            task = asyncio.create_task(self._line.channel.close(RETIREMENT_SECONDS), name="channel retires")
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
            self._line = self._opened(credentials)
        return self._line

    async def close(self) -> None:
        """Cancel what is still open."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await self._line.channel.close()

    def _opened(self, credentials: grpc.ChannelCredentials | None) -> Line:
        channel = (
            grpc.aio.insecure_channel(self._target, options=self._options)
            if credentials is None
            else grpc.aio.secure_channel(self._target, credentials, options=self._options)
        )
        return Line(channel, credentials, chat_pb2_grpc.ChatServiceStub(channel), health_pb2_grpc.HealthStub(channel))


@asynccontextmanager
async def lines_to(
    target: str, credentials: Callable[[], grpc.ChannelCredentials | None], server_name: str = ""
) -> AsyncGenerator[Lines]:
    """Hold a channel to the service; it connects with the first call."""
    lines = Lines(target, credentials, server_name)
    try:
        yield lines
    finally:
        await lines.close()
