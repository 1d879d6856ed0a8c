"""Generators that do what a test needs, and tell it what became of them."""

from __future__ import annotations

import asyncio
import inspect
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from haystack import Document, Pipeline, component
from haystack.components.agents import Agent
from haystack.dataclasses import (
    ChatMessage,
    ReasoningContent,
    StreamingCallbackT,
    StreamingChunk,
    ToolCall,
    ToolCallDelta,
)
from haystack.tools import ToolsType  # noqa: TC002 - Haystack reads the annotations of `run`
from haystack.tools.tool import Tool

from haystream_service.run.queue import RunStopped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WAIT_SECONDS = 30  # a thread that waits for its test; a test that fails must not keep it for ever


class Gate:
    """An event for coroutines and threads alike. To be made on the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._thread_event = threading.Event()

    def set(self) -> None:
        """Open the gate; from anywhere."""
        self._thread_event.set()
        self._loop.call_soon_threadsafe(self._event.set)

    def is_set(self) -> bool:
        """Tell whether it is open."""
        return self._thread_event.is_set()

    async def wait(self) -> None:
        """Wait in a coroutine."""
        if not self.is_set():
            await self._event.wait()

    def wait_in_thread(self) -> None:
        """Wait in a thread."""
        assert self._thread_event.wait(WAIT_SECONDS)


@dataclass
class Stage:
    """What the fakes of one test share with it.

    A fake says `text` as often as `chunks` tells, sets `waiting`, waits for `proceed`, says it `more` times, and then
    answers or fails. `cancelled` is set where it was stopped instead.
    """

    waiting: Gate = field(default_factory=Gate)
    proceed: Gate = field(default_factory=Gate)
    cancelled: Gate = field(default_factory=Gate)
    received: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    chunks: int = 0
    more: int = 0
    text: str = "word "
    error: BaseException | None = None
    meta: dict[str, Any] = field(default_factory=lambda: {"finish_reason": "stop"})
    said: int = 0

    async def stands_still(self) -> int:
        """Wait until the model is held back; return how often it has spoken. No event tells that nothing happens."""
        said = -1
        while said != self.said:
            said = self.said
            await asyncio.sleep(0.3)
        return said

    @property
    def chunk(self) -> StreamingChunk:
        """The next chunk."""
        self.said += 1
        return StreamingChunk(content=self.text, index=0)

    def answer(self) -> dict[str, list[ChatMessage]]:
        """Answer, or fail."""
        if self.error is not None:
            raise self.error
        return {"replies": [ChatMessage.from_assistant(self.text * (self.chunks + self.more), meta=self.meta)]}


_stage: list[Stage] = []


def new_stage() -> Stage:
    """Return the stage of the test that begins; the fakes of an earlier one keep theirs."""
    _stage[:] = [Stage()]
    return _stage[0]


def stage() -> Stage:
    """Return the stage of the test that runs."""
    return _stage[0]


async def speak(callback: StreamingCallbackT | None) -> dict[str, list[ChatMessage]]:
    """Do on the loop what the stage says."""
    mine = stage()
    try:
        for _ in range(mine.chunks):
            await tell(callback, mine.chunk)
        mine.waiting.set()
        await mine.proceed.wait()
        for _ in range(mine.more):
            await tell(callback, mine.chunk)
    except asyncio.CancelledError:
        mine.cancelled.set()
        raise
    return mine.answer()


def speak_in_thread(callback: StreamingCallbackT | None) -> dict[str, list[ChatMessage]]:
    """Do in a thread what the stage says."""
    mine = stage()
    try:
        for _ in range(mine.chunks):
            if callback is not None:
                callback(mine.chunk)
        mine.waiting.set()
        mine.proceed.wait_in_thread()
        for _ in range(mine.more):
            if callback is not None:
                callback(mine.chunk)
    except RunStopped:
        mine.cancelled.set()
        raise
    return mine.answer()


async def tell(callback: StreamingCallbackT | None, chunk: StreamingChunk) -> None:
    """Call a callback as Haystack's generators do on the loop."""
    if callback is not None:
        result = callback(chunk)
        if inspect.isawaitable(result):
            await result


def replied(text: str) -> dict[str, list[ChatMessage]]:
    """Return the answer of a model that came to its end."""
    return {"replies": [ChatMessage.from_assistant(text, meta={"finish_reason": "stop"})]}


@component
class AsyncFake:
    """Speaks on the event loop."""

    @component.output_types(replies=list[ChatMessage])
    def run(
        self,
        query: str,
        streaming_callback: StreamingCallbackT | None = None,
        generation_kwargs: dict[str, Any] | None = None,
        top_k: int = 3,
    ) -> dict[str, list[ChatMessage]]:
        raise AssertionError("the service runs this component on its loop")

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self,
        query: str,
        streaming_callback: StreamingCallbackT | None = None,
        generation_kwargs: dict[str, Any] | None = None,
        top_k: int = 3,
    ) -> dict[str, list[ChatMessage]]:
        stage().received.append({"query": query, "generation_kwargs": generation_kwargs, "top_k": top_k})
        return await speak(streaming_callback)


@component
class OnLoop:
    """Does on the event loop what it is made with."""

    def __init__(
        self, work: Callable[[str, StreamingCallbackT | None], Awaitable[dict[str, list[ChatMessage]]]]
    ) -> None:
        self._work = work

    @component.output_types(replies=list[ChatMessage])
    def run(self, query: str, streaming_callback: StreamingCallbackT | None = None) -> dict[str, list[ChatMessage]]:
        raise AssertionError("the service runs this component on its loop")

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self, query: str, streaming_callback: StreamingCallbackT | None = None
    ) -> dict[str, list[ChatMessage]]:
        return await self._work(query, streaming_callback)


@component
class SyncFake:
    """Speaks in a thread."""

    @component.output_types(replies=list[ChatMessage])
    def run(self, query: str, streaming_callback: StreamingCallbackT | None = None) -> dict[str, list[ChatMessage]]:
        stage().received.append({"query": query})
        return speak_in_thread(streaming_callback)


@component
class ThreadedAsyncFake:
    """Has `run_async`, and takes its callback to a thread all the same; a coroutine function it would refuse."""

    @component.output_types(replies=list[ChatMessage])
    def run(self, query: str, streaming_callback: StreamingCallbackT | None = None) -> dict[str, list[ChatMessage]]:
        if inspect.iscoroutinefunction(streaming_callback):
            raise ValueError("the callback cannot be a coroutine")
        return speak_in_thread(streaming_callback)

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self, query: str, streaming_callback: StreamingCallbackT | None = None
    ) -> dict[str, list[ChatMessage]]:
        return await asyncio.to_thread(self.run, query=query, streaming_callback=streaming_callback)


CALL = ToolCall(tool_name="weather", arguments={"city": "Rome"}, id="call-1")


FIRST_TURN = [
    StreamingChunk(content="", index=0, reasoning=ReasoningContent(reasoning_text="Hm.")),
    StreamingChunk(
        content="",
        index=1,
        start=True,
        tool_calls=[ToolCallDelta(index=1, tool_name="weather", arguments='{"city": "Rome"}', id="call-1")],
    ),
]


def is_first_turn(messages: list[ChatMessage]) -> bool:
    """Tell whether an Agent's model has called no tool yet."""
    return not any(message.tool_call_result for message in messages)


def call_tool() -> dict[str, list[ChatMessage]]:
    """Return the answer of an Agent's first turn."""
    meta = {"finish_reason": "tool_calls", "model": "m", "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    return {"replies": [ChatMessage.from_assistant(tool_calls=[CALL], meta=meta)]}


@component
class AsyncChatFake:
    """The model of an Agent: calls a tool, and then does on the loop what the stage says."""

    @component.output_types(replies=list[ChatMessage])
    def run(
        self,
        messages: list[ChatMessage],
        streaming_callback: StreamingCallbackT | None = None,
        tools: ToolsType | None = None,
    ) -> dict[str, list[ChatMessage]]:
        raise AssertionError("the service runs this component on its loop")

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self,
        messages: list[ChatMessage],
        streaming_callback: StreamingCallbackT | None = None,
        tools: ToolsType | None = None,
    ) -> dict[str, list[ChatMessage]]:
        if not is_first_turn(messages):
            return await speak(streaming_callback)
        for chunk in FIRST_TURN:
            await tell(streaming_callback, chunk)
        return call_tool()


@component
class SyncChatFake:
    """The model of an Agent that only knows threads."""

    @component.output_types(replies=list[ChatMessage])
    def run(
        self,
        messages: list[ChatMessage],
        streaming_callback: StreamingCallbackT | None = None,
        tools: ToolsType | None = None,
    ) -> dict[str, list[ChatMessage]]:
        if not is_first_turn(messages):
            return speak_in_thread(streaming_callback)
        for chunk in FIRST_TURN:
            if streaming_callback is not None:
                streaming_callback(chunk)
        return call_tool()


def agent_of(model: Any) -> Agent:
    """Return an Agent with one tool."""
    return Agent(chat_generator=model, tools=[weather_tool(sunny)])


def sunny(city: str) -> str:
    """Tell the weather."""
    return f"Sunny in {city}"


def weather_tool(function: Callable[..., str]) -> Tool:
    """Return the tool that the fakes' models call."""
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return Tool(name="weather", description="Tells the weather.", parameters=parameters, function=function)


@component
class Finder:
    """Finds two documents, as a retriever does."""

    @component.output_types(documents=list[Document])
    def run(self, query: str) -> dict[str, list[Document]]:
        found = [Document(id=f"d{number}", content=query, score=0.5, meta={"page": number}) for number in (1, 2)]
        return {"documents": found}


def pipeline_of(generator: Any) -> Pipeline:
    """Return a pipeline of one component named `llm`."""
    pipeline = Pipeline()
    pipeline.add_component("llm", generator)
    return pipeline
