"""The channel to the service, and the calls that it takes."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream.v1 import chat_pb2, chat_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

SERVICE_NAME = chat_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name

# The deadline of what is answered at once. Streams have none: the service bounds a run by its own MAX_RUN_SECONDS, and
# one that falls silent is ended after GATEWAY_SILENCE_SECONDS.
UNARY_SECONDS = 5.0

# Calls go to all addresses of a `dns:///` name in turn. What was refused without having begun is not repeated here: the
# browser is told to wait, and comes back by itself.
SERVICE_CONFIG: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}

OPTIONS = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
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

Metadata: TypeAlias = tuple[tuple[str, str], ...]
EventCall: TypeAlias = (
    grpc.aio.UnaryStreamCall[chat_pb2.ChatRequest, chat_pb2.ChatResponse]
    | grpc.aio.UnaryStreamCall[chat_pb2.ResumeRequest, chat_pb2.ResumeResponse]
)


@dataclass(frozen=True, slots=True)
class Upstream:
    """The service behind the gateway. While it is down calls fail at once; the channel finds it again by itself.

    What is awaited here raises grpc.aio.AioRpcError. `metadata` is what is passed on of a caller.
    """

    _chat: chat_pb2_grpc.ChatServiceStub
    _health: health_pb2_grpc.HealthStub

    def chat(self, request: chat_pb2.ChatRequest, metadata: Metadata = ()) -> EventCall:
        """Start a run, or attach to the one that has the request's `run_id`."""
        return self._chat.Chat(request, metadata=metadata)

    def resume(self, run_id: str, after_seq: int, metadata: Metadata = ()) -> EventCall:
        """Read a run from after a sequence number."""
        return self._chat.Resume(chat_pb2.ResumeRequest(run_id=run_id, after_seq=after_seq), metadata=metadata)

    async def cancel(self, run_id: str, metadata: Metadata = ()) -> None:
        """Stop a run, unless it has ended."""
        await self._chat.Cancel(chat_pb2.CancelRequest(run_id=run_id), metadata=metadata, timeout=UNARY_SECONDS)

    async def pipelines(self, metadata: Metadata = ()) -> chat_pb2.ListPipelinesResponse:
        """Return all pipelines, in short."""
        request = chat_pb2.ListPipelinesRequest()
        return await self._chat.ListPipelines(request, metadata=metadata, timeout=UNARY_SECONDS)

    async def pipeline(self, name: str, metadata: Metadata = ()) -> chat_pb2.GetPipelineResponse:
        """Return one pipeline in full; without a name the default one."""
        request = chat_pb2.GetPipelineRequest(name=name)
        return await self._chat.GetPipeline(request, metadata=metadata, timeout=UNARY_SECONDS)

    async def is_ready(self) -> bool:
        """Tell whether the service takes chats now."""
        request = health_pb2.HealthCheckRequest(service=SERVICE_NAME)
        response = await self._health.Check(request, timeout=UNARY_SECONDS)
        return response.status == health_pb2.HealthCheckResponse.SERVING


@asynccontextmanager
async def connected(target: str) -> AsyncGenerator[Upstream]:
    """Hold a channel to the service; it connects with the first call."""
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        yield Upstream(chat_pb2_grpc.ChatServiceStub(channel), health_pb2_grpc.HealthStub(channel))
