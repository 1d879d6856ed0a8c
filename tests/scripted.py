"""A service that runs nothing: it says what a test has written down, and notes what its callers send along."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc.aio

from haystream.v1 import chat_pb2, chat_pb2_grpc
from tests.conftest import browsed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from haystream_service.status import Status
    from tests.conftest import Browser

STARTED = chat_pb2.Event(seq=1, started=chat_pb2.Started(run_id="r-1", pipeline="scripted"))
FINISHED = chat_pb2.Event(seq=9, finished=chat_pb2.Finished(reason=chat_pb2.FINISH_REASON_STOP))


def text(delta: str, component: str = "llm") -> chat_pb2.Event:
    """Return a piece of an answer."""
    return chat_pb2.Event(seq=2, text=chat_pb2.TextDelta(component=component, delta=delta))


def called(index: int, call_id: str = "", name: str = "", arguments: str = "") -> chat_pb2.Event:
    """Return a piece of a tool call."""
    piece = chat_pb2.ToolCallDelta(component="agent", index=index, id=call_id, name=name, arguments_delta=arguments)
    return chat_pb2.Event(seq=3, tool_call=piece)


def answered(call_id: str, name: str, result: str) -> chat_pb2.Event:
    """Return a tool's answer."""
    return chat_pb2.Event(
        seq=4, tool_result=chat_pb2.ToolResult(component="agent", id=call_id, name=name, result=result)
    )


def finished(reason: chat_pb2.FinishReason.ValueType, *usage: chat_pb2.Usage) -> chat_pb2.Event:
    """Return the end of a run."""
    return chat_pb2.Event(seq=9, finished=chat_pb2.Finished(reason=reason, usage=usage))


@dataclass(frozen=True, slots=True)
class Foreign:
    """A status without details, as something on the way makes it."""

    code: grpc.StatusCode
    message: str = "at 10.0.0.7"

    def trailers(self, _: dict[str, str]) -> tuple[tuple[str, bytes], ...]:
        """Return no details."""
        return ()


@dataclass
class Scripted(chat_pb2_grpc.ChatServiceServicer):
    """Says its events, and ends with its status where it has one; or else waits until its caller leaves."""

    events: Sequence[chat_pb2.Event] = (STARTED, FINISHED)
    status: Status | Foreign | None = None
    waits: bool = False
    requests: list[chat_pb2.ChatRequest] = field(default_factory=list[chat_pb2.ChatRequest])
    metadata: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def Chat(  # type: ignore[override]  # as the service's own
        self, request: chat_pb2.ChatRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        self._note(context)
        self.requests.append(request)
        self.asked.set()
        try:
            for event in self.events:
                await context.write(chat_pb2.ChatResponse(event=event))
            if self.waits:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.left.set()
            raise
        if self.status is not None:
            await context.abort(self.status.code, self.status.message, self.status.trailers({"run_id": "r-1"}))

    async def ListPipelines(
        self, request: chat_pb2.ListPipelinesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> chat_pb2.ListPipelinesResponse:
        self._note(context)
        pipelines = [chat_pb2.Pipeline(name="scripted", ready=True), chat_pb2.Pipeline(name="broken")]
        return chat_pb2.ListPipelinesResponse(pipelines=pipelines)

    async def GetPipeline(
        self, request: chat_pb2.GetPipelineRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> chat_pb2.GetPipelineResponse:
        self._note(context)
        return chat_pb2.GetPipelineResponse(pipeline=chat_pb2.Pipeline(name=request.name, ready=True))

    async def Resume(  # type: ignore[override]  # as the service's own
        self, request: chat_pb2.ResumeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        self._note(context)

    async def Cancel(
        self, request: chat_pb2.CancelRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> chat_pb2.CancelResponse:
        self._note(context)
        return chat_pb2.CancelResponse()

    def _note(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self.metadata.append(dict(context.invocation_metadata() or ()))


@asynccontextmanager
async def behind_gateway(service: Scripted, **settings: Any) -> AsyncGenerator[Browser]:
    """Serve what is scripted, and a gateway to it."""
    async with scripted(service) as address, browsed(address, **settings) as browser:
        yield browser


@asynccontextmanager
async def scripted(service: Scripted, host: str = "127.0.0.1", port: int = 0) -> AsyncGenerator[str]:
    """Serve what is scripted at an address of the loopback; yield that."""
    server = grpc.aio.server()  # pyright: ignore[reportUnknownMemberType]  # its handlers are half typed
    chat_pb2_grpc.add_ChatServiceServicer_to_server(service, server)
    bound = server.add_insecure_port(f"{host}:{port}")
    await server.start()
    try:
        yield f"{host}:{bound}"
    finally:
        await server.stop(None)
