"""The official clients of OpenAI at a gateway, and a service behind it that says what a test has written down."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc.aio
import openai
from openai.types.chat import ChatCompletionChunk

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_gateway.openai.schemas import Chunk
from tests.conftest import browsed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from haystream_service.status import Status
    from tests.conftest import Browser

QUESTION: Any = [{"role": "user", "content": "Why is the sky blue?"}]

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


@dataclass
class Scripted(chat_pb2_grpc.ChatServiceServicer):
    """Says its events, and ends with its status where it has one; or else waits until its caller leaves."""

    events: Sequence[chat_pb2.Event] = (STARTED, FINISHED)
    status: Status | None = None
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
        raise AssertionError("OpenAI's clients know nothing of it")

    async def Cancel(
        self, request: chat_pb2.CancelRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> chat_pb2.CancelResponse:
        raise AssertionError("OpenAI's clients know nothing of it")

    def _note(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self.metadata.append(dict(context.invocation_metadata() or ()))


@asynccontextmanager
async def behind_gateway(service: Scripted, **settings: Any) -> AsyncGenerator[Browser]:
    """Serve what is scripted, and a gateway to it."""
    server = grpc.aio.server()  # pyright: ignore[reportUnknownMemberType]  # its handlers are half typed
    chat_pb2_grpc.add_ChatServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with browsed(f"127.0.0.1:{port}", **settings) as browser:
            yield browser
    finally:
        await server.stop(None)


def client_of(browser: Browser, **options: Any) -> openai.AsyncOpenAI:
    """Return OpenAI's client of a gateway, which does not try again unless it is told to."""
    defaults: dict[str, Any] = {"api_key": "caller", "max_retries": 0, "timeout": 30}
    return openai.AsyncOpenAI(base_url=f"{browser.url}/v1", **{**defaults, **options})


def asked(client: openai.AsyncOpenAI, **body: Any) -> asyncio.Task[Any]:
    """Have a client ask, in a task of its own."""
    create: Any = client.chat.completions.create
    return asyncio.create_task(create(**{"model": "fake", "messages": QUESTION, **body}))


async def chunks_of(browser: Browser, **body: Any) -> list[ChatCompletionChunk]:
    """Have OpenAI's client read a whole stream."""
    async with client_of(browser) as client:
        return [chunk async for chunk in await asked(client, stream=True, **body)]


async def frames_of(browser: Browser, **body: Any) -> list[str]:
    """Read a whole stream as it is, frame by frame; fails where a frame is more than one line of data."""
    answer = await browser.http.post(
        "/v1/chat/completions", json={"model": "fake", "messages": QUESTION, "stream": True, **body}
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    *frames, rest = answer.text.replace(": ping\n", "").split("\n\n")
    assert rest == ""
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    return [frame.removeprefix("data: ") for frame in frames]


def strictly(chunk: dict[str, Any]) -> ChatCompletionChunk:
    """Read a chunk as OpenAI defines it, and as the gateway does, with no more than what clients are known to keep."""
    Chunk.model_validate(chunk, strict=True)
    read = ChatCompletionChunk.model_validate(chunk, strict=True)
    assert (read.model_extra or {}).keys() <= {"haystream"}
    for choice in read.choices:
        assert not choice.model_extra
        assert (choice.delta.model_extra or {}).keys() <= {"reasoning_content"}
        for call in choice.delta.tool_calls or ():
            assert not call.model_extra
            assert call.function is not None
            assert not call.function.model_extra
    return read


def strict_chunks(frames: Sequence[str]) -> list[ChatCompletionChunk]:
    """Read the frames of a stream that came to its own end."""
    assert [frame for frame in frames if frame == "[DONE]"] == ["[DONE]"]
    assert frames[-1] == "[DONE]"
    return [strictly(json.loads(frame)) for frame in frames[:-1]]


def content_of(chunks: Sequence[ChatCompletionChunk]) -> str:
    """Join the text of a stream."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def extras_of(chunk: Any) -> dict[str, Any]:
    """Return what OpenAI has no place for."""
    extras: dict[str, Any] = getattr(chunk, "haystream", {})
    return extras
