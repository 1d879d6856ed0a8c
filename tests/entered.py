"""The entrance alone, with limits that a test can reach, and calls that keep their request back."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from haystream.v1 import chat_pb2_grpc
from haystream_service.entrance.decoding import Decoding, Limits
from haystream_service.entrance.door import Door
from haystream_service.entrance.health import SERVICE_NAME
from haystream_service.entrance.health_servicer import HealthServicer
from haystream_service.entrance.listening import listening_server
from haystream_service.entrance.reading import Bounds
from haystream_service.identity.principal import Principal
from tests.scripted import FINISHED, STARTED, Scripted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from haystream_service.entrance.refusing import RefusalObserver
    from haystream_service.identity.certificate import PeerCertificate

SOON = Bounds(seconds=0.3, max_bytes=4096, at_once=16, line_seconds=0.3)
IMPATIENT = Limits(chats=SOON, others=SOON)
SERVING = health_pb2.HealthCheckResponse.SERVING


class Billing:
    """Takes everybody for one caller."""

    async def principal_of(self, authorization: Sequence[str], certificate: PeerCertificate | None) -> Principal:
        return Principal("billing")


@asynccontextmanager
async def entered(
    limits: Limits, observer: RefusalObserver, health: type[HealthServicer] = HealthServicer
) -> AsyncGenerator[str]:
    """Serve behind an entrance with other limits; yields the address."""
    server = listening_server([Door(SERVICE_NAME, Billing(), observer), Decoding(observer, limits)], ())
    chat_pb2_grpc.add_ChatServiceServicer_to_server(Scripted([STARTED, FINISHED]), server)
    health_pb2_grpc.add_HealthServicer_to_server(health({SERVICE_NAME: SERVING}), server)
    reflection.enable_server_reflection([SERVICE_NAME], server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def connected(address: str, *options: tuple[str, Any]) -> AsyncGenerator[grpc.aio.Channel]:
    """Connect anew: channels to the same address share a connection unless they are told not to."""
    own = [("grpc.use_local_subchannel_pool", 1), *options]
    async with grpc.aio.insecure_channel(address, options=own) as channel:
        yield channel


def begun(channel: grpc.aio.Channel, method: str, metadata: Any = ()) -> Any:
    """Call without a request, whatever the method wants."""
    untyped: Any = channel
    return untyped.stream_stream(method)(metadata=metadata)
