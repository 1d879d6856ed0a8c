"""Health: what is told of the service, when, and on a port of its own for probes that know no encryption."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream.v1 import chat_pb2
from haystream_service.entrance.binding import bind
from haystream_service.entrance.health_servicer import HealthServicer
from haystream_service.entrance.listening import listening_server
from haystream_service.entrance.transport import options_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Sequence

    import grpc.aio

    from haystream_service.pipelines.registry import PipelineRegistry
    from haystream_service.settings import Settings

SERVICE_NAME = chat_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

MAX_PROBE_BYTES = 64 * 1024


def new_health() -> HealthServicer:
    """Return the health of a service that lives, and is not ready yet."""
    return HealthServicer({"": SERVING, SERVICE_NAME: NOT_SERVING})


async def keep_readiness(registry: PipelineRegistry, servicer: HealthServicer, loaded: asyncio.Event) -> None:
    """Load the pipelines; the service is ready once all are warm that can be, and as long as there is one."""
    await registry.load()
    while True:
        registry.changed.clear()
        is_ready = any(slot.loaded is not None for slot in registry.slots.values())
        servicer.set(SERVICE_NAME, SERVING if is_ready else NOT_SERVING)
        loaded.set()
        await registry.changed.wait()


@asynccontextmanager
async def health_port(
    servicer: HealthServicer, settings: Settings, interceptors: Sequence[grpc.aio.ServerInterceptor]
) -> AsyncGenerator[int | None]:
    """Answer about health alone, unencrypted, until the block is left; nothing where there is no address.

    Yields the port. Raises AddressInUse. To be entered before the service's own port and left after it, so that probes
    are answered as long as anything goes on.
    """
    if not settings.health_listen:
        yield None
        return
    options = {**dict(options_of(settings)), "grpc.max_receive_message_length": MAX_PROBE_BYTES}
    server = listening_server(interceptors, list(options.items()))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = bind(server, "HAYSTREAM_HEALTH_LISTEN", settings.health_listen)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)
