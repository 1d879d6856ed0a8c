"""The service behind the gateway, and the calls that it takes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from haystream.v1 import chat_pb2
from haystream_gateway.channel import SERVICE_NAME, Lines, lines_to

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from haystream.v1 import chat_pb2_grpc

# The deadline of what is answered at once. Streams have none: the service bounds a run by its own MAX_RUN_SECONDS, and
# one that falls silent is ended after GATEWAY_SILENCE_SECONDS.
UNARY_SECONDS = 5.0

AUTHORIZATION = "authorization"

# What strangers get, from the service or from what stands before it.
REFUSED = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})

Metadata: TypeAlias = tuple[tuple[str, str], ...]
EventCall: TypeAlias = (
    grpc.aio.UnaryStreamCall[chat_pb2.ChatRequest, chat_pb2.ChatResponse]
    | grpc.aio.UnaryStreamCall[chat_pb2.ResumeRequest, chat_pb2.ResumeResponse]
)


@dataclass(frozen=True, slots=True)
class Upstream:
    """The service behind the gateway. While it is down calls fail at once; the channel finds it again by itself.

    What is awaited here raises grpc.aio.AioRpcError. `metadata` is what is passed on of a caller; where that one says
    not who it is, the gateway says who itself is.
    """

    _lines: Lines
    _token: Callable[[], str]

    def chat(self, request: chat_pb2.ChatRequest, metadata: Metadata = ()) -> EventCall:
        """Start a run, or attach to the one that has the request's `run_id`."""
        return self._lines.current().chat.Chat(request, metadata=self._identified(metadata))

    def resume(self, run_id: str, after_seq: int, metadata: Metadata = ()) -> EventCall:
        """Read a run from after a sequence number."""
        return self._lines.current().chat.Resume(
            chat_pb2.ResumeRequest(run_id=run_id, after_seq=after_seq), metadata=self._identified(metadata)
        )

    async def cancel(self, run_id: str, metadata: Metadata = ()) -> None:
        """Stop a run, unless it has ended."""
        await self._unary.Cancel(
            chat_pb2.CancelRequest(run_id=run_id), metadata=self._identified(metadata), timeout=UNARY_SECONDS
        )

    async def pipelines(self, metadata: Metadata = ()) -> chat_pb2.ListPipelinesResponse:
        """Return all pipelines, in short."""
        request = chat_pb2.ListPipelinesRequest()
        return await self._unary.ListPipelines(request, metadata=self._identified(metadata), timeout=UNARY_SECONDS)

    async def pipeline(self, name: str, metadata: Metadata = ()) -> chat_pb2.GetPipelineResponse:
        """Return one pipeline in full; without a name the default one."""
        request = chat_pb2.GetPipelineRequest(name=name)
        return await self._unary.GetPipeline(request, metadata=self._identified(metadata), timeout=UNARY_SECONDS)

    async def asks_who_calls(self) -> bool:
        """Tell whether the service refuses a caller who does not say who that is, as this call does not."""
        try:
            await self._unary.ListPipelines(chat_pb2.ListPipelinesRequest(), timeout=UNARY_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() in REFUSED:
                return True
            raise
        return False

    async def is_ready(self) -> bool:
        """Tell whether the service takes chats now."""
        request = health_pb2.HealthCheckRequest(service=SERVICE_NAME)
        response = await self._lines.current().health.Check(request, timeout=UNARY_SECONDS)
        return response.status == health_pb2.HealthCheckResponse.SERVING

    @property
    def _unary(self) -> chat_pb2_grpc.ChatServiceStub:
        return self._lines.current().unary

    def _identified(self, metadata: Metadata) -> Metadata:
        """Add the gateway's own token where there is one, and the caller has brought nothing."""
        token = self._token()
        if not token or any(name == AUTHORIZATION for name, _ in metadata):
            return metadata
        return (*metadata, (AUTHORIZATION, f"Bearer {token}"))


@asynccontextmanager
async def connected(
    target: str,
    credentials: Callable[[], grpc.ChannelCredentials | None],
    token: Callable[[], str],
    server_name: str = "",
) -> AsyncGenerator[Upstream]:
    """Hold the connections to the service; they are made with the first calls."""
    async with lines_to(target, credentials, server_name) as lines:
        yield Upstream(lines, token)
