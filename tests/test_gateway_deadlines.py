"""What the gateway asks the service and has answered at once: where it is not, nobody waits for long."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_gateway import upstream
from tests.conftest import browsed
from tests.scripted import Scripted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    Context = grpc.aio.ServicerContext[Any, Any]

SECONDS = 10  # what anything on this machine takes, and much more


@dataclass
class Mute(Scripted, health_pb2_grpc.HealthServicer):
    """A service that takes calls, and answers none; it notes those that it was asked to forget."""

    cancelled: list[str] = field(default_factory=list[str])
    forgotten: asyncio.Event = field(default_factory=asyncio.Event)

    async def ListPipelines(
        self, request: chat_pb2.ListPipelinesRequest, context: Context
    ) -> chat_pb2.ListPipelinesResponse:
        raise await self._never("ListPipelines")

    async def GetPipeline(self, request: chat_pb2.GetPipelineRequest, context: Context) -> chat_pb2.GetPipelineResponse:
        raise await self._never("GetPipeline")

    async def Cancel(self, request: chat_pb2.CancelRequest, context: Context) -> chat_pb2.CancelResponse:
        raise await self._never("Cancel")

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        raise await self._never("Check")

    async def _never(self, method: str) -> Exception:
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.append(method)
            self.forgotten.set()
        return AssertionError()


@asynccontextmanager
async def muted(service: Mute) -> AsyncGenerator[str]:
    """Serve nothing; yield the address."""
    server = grpc.aio.server()  # pyright: ignore[reportUnknownMemberType]  # its handlers are half typed
    chat_pb2_grpc.add_ChatServiceServicer_to_server(service, server)
    health_pb2_grpc.add_HealthServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    ("way", "address", "asked"),
    [
        ("GET", "/pipelines", "ListPipelines"),
        ("GET", "/pipelines/echo", "GetPipeline"),
        ("POST", "/runs/r/cancel", "Cancel"),
        ("GET", "/readyz", "Check"),
        ("GET", "/v1/models", "ListPipelines"),
    ],
)
async def test_a_service_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, way: str, address: str, asked: str
) -> None:
    """Its browser is told so, and that it may try again; the service, that nobody waits any more."""
    monkeypatch.setattr(upstream, "UNARY_SECONDS", 0.3)
    service = Mute()
    async with muted(service) as target, browsed(target) as browser, asyncio.timeout(SECONDS):
        answer = await browser.http.request(way, address)
        assert answer.status_code == 504
        assert answer.headers["retry-after"] == "1"
        assert "SERVICE_SILENT" in answer.text.upper()  # OpenAI's words are small
        assert target not in answer.text
        await service.forgotten.wait()
    assert service.cancelled == [asked]


def test_it_is_waited_for_while_a_browser_has_patience() -> None:
    """Which is longer than a service needs that is busy to its limits."""
    assert upstream.UNARY_SECONDS == 5
