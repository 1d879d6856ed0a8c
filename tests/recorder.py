"""A service that runs nothing, and notes what its callers send along."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc.aio

from haystream.v1 import chat_pb2, chat_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Recorder(chat_pb2_grpc.ChatServiceServicer):
    """A service that notes what is sent along, and answers with an ending."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, str]] = []

    async def Chat(  # type: ignore[override]  # the generated stub knows only the generator's form
        self, request: chat_pb2.ChatRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        self._note(context)
        await context.write(chat_pb2.ChatResponse(event=chat_pb2.Event(seq=1, started=chat_pb2.Started(run_id="r"))))
        finished = chat_pb2.Finished(reason=chat_pb2.FINISH_REASON_STOP)
        await context.write(chat_pb2.ChatResponse(event=chat_pb2.Event(seq=2, finished=finished)))

    async def ListPipelines(
        self, request: chat_pb2.ListPipelinesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> chat_pb2.ListPipelinesResponse:
        self._note(context)
        return chat_pb2.ListPipelinesResponse()

    async def Resume(  # type: ignore[override]  # as Chat
        self, request: chat_pb2.ResumeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        self._note(context)

    async def Cancel(
        self, request: chat_pb2.CancelRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> chat_pb2.CancelResponse:
        self._note(context)
        return chat_pb2.CancelResponse()

    async def GetPipeline(
        self, request: chat_pb2.GetPipelineRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> chat_pb2.GetPipelineResponse:
        self._note(context)
        return chat_pb2.GetPipelineResponse()

    def _note(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self.metadata.append({name: str(value) for name, value in context.invocation_metadata() or ()})


@asynccontextmanager
async def recording(host: str, port: int = 0) -> AsyncGenerator[tuple[Recorder, int]]:
    """Serve at an address of the loopback; yield the port as well."""
    recorder = Recorder()
    server = grpc.aio.server()  # pyright: ignore[reportUnknownMemberType]  # half typed in its stubs
    chat_pb2_grpc.add_ChatServiceServicer_to_server(recorder, server)
    bound = server.add_insecure_port(f"{host}:{port}")
    await server.start()
    try:
        yield recorder, bound
    finally:
        await server.stop(None)
