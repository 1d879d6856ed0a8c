"""Health: what is told of the service, when, and on a port of its own for probes that know no encryption."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from haystream.v1 import chat_pb2
from haystream_service.entrance.binding import bind
from haystream_service.entrance.listening import listening_server

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator

    from haystream_service.pipelines.registry import PipelineRegistry

SERVICE_NAME = chat_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

# Probes and people ask in a few small calls.
OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 64 * 1024),
    ("grpc.max_concurrent_streams", 100),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
)


async def new_health() -> health.aio.HealthServicer:
    """Return the health of a service that lives, and is not ready yet."""
    servicer = health.aio.HealthServicer()
    await servicer.set("", SERVING)
    await servicer.set(SERVICE_NAME, NOT_SERVING)
    return servicer


async def keep_readiness(
    registry: PipelineRegistry, servicer: health.aio.HealthServicer, loaded: asyncio.Event
) -> None:
    """Load the pipelines; the service is ready once all are warm that can be, and as long as there is one."""
    await registry.load()
    while True:
        registry.changed.clear()
        is_ready = any(slot.loaded is not None for slot in registry.slots.values())
        await servicer.set(SERVICE_NAME, SERVING if is_ready else NOT_SERVING)
        loaded.set()
        await registry.changed.wait()


@asynccontextmanager
async def health_port(
    servicer: health.aio.HealthServicer, address: str, *, has_reflection: bool
) -> AsyncGenerator[int | None]:
    """Answer about health alone, unencrypted, until the block is left; nothing where there is no address.

    Yields the port. Raises AddressInUse. To be entered before the service's own port and left after it, so that probes
    are answered as long as anything goes on.
    """
    if not address:
        yield None
        return
    server = listening_server((), OPTIONS)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    if has_reflection:
        reflection.enable_server_reflection((health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    port = bind(server, "HAYSTREAM_HEALTH_LISTEN", address)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)
