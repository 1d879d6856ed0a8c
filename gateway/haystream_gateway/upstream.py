"""The channel to the service, and whether the service is ready."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream.v1 import chat_pb2, chat_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

SERVICE_NAME = chat_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name
UNARY_SECONDS = 5.0

OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # gRPC would ask http_proxy even for the loopback
    # gRPC measures the line and opens its window to megabytes, which a slow browser would leave in this process.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A service that froze or lost its network is noticed within 25 s. The keepalive timeout alone never fires.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
)


@dataclass(frozen=True, slots=True)
class Upstream:
    """The service behind the gateway. While it is down calls fail at once; the channel finds it again by itself."""

    chat: chat_pb2_grpc.ChatServiceStub
    health: health_pb2_grpc.HealthStub

    async def is_ready(self) -> bool:
        """Tell whether the service takes chats now. Raises grpc.aio.AioRpcError where it cannot be asked."""
        request = health_pb2.HealthCheckRequest(service=SERVICE_NAME)
        response = await self.health.Check(request, timeout=UNARY_SECONDS)
        return response.status == health_pb2.HealthCheckResponse.SERVING


@asynccontextmanager
async def connected(target: str) -> AsyncGenerator[Upstream]:
    """Hold a channel to the service; it connects with the first call."""
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        yield Upstream(chat_pb2_grpc.ChatServiceStub(channel), health_pb2_grpc.HealthStub(channel))
