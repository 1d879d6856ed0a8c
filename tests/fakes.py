"""Generators that do what a test needs, and tell it what became of them."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from haystack import Pipeline, component
from haystack.dataclasses import ChatMessage, StreamingCallbackT, StreamingChunk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    AsyncCallback: TypeAlias = Callable[[StreamingChunk], Awaitable[None]]


@dataclass
class Stage:
    """What the fakes of one test share with it. `proceed` lets a fake that waits go on."""

    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    proceed: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    thread_waiting: threading.Event = field(default_factory=threading.Event)
    thread_proceed: threading.Event = field(default_factory=threading.Event)
    thread_stopped: threading.Event = field(default_factory=threading.Event)
    received: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    chunks: int = 0
    text: str = "word "
    error: Exception | None = None
    meta: dict[str, Any] = field(default_factory=lambda: {"finish_reason": "stop"})


_stage: list[Stage] = []


def new_stage() -> Stage:
    """Return the stage of the test that begins; the fakes of an earlier one keep theirs."""
    _stage[:] = [Stage()]
    return _stage[0]


def stage() -> Stage:
    """Return the stage of the test that runs."""
    return _stage[0]


@component
class AsyncFake:
    """Streams what the stage says, waits until it may go on, and then answers or fails."""

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
        mine = stage()
        mine.received.append({"query": query, "generation_kwargs": generation_kwargs, "top_k": top_k})
        for _ in range(mine.chunks):
            if streaming_callback is not None:
                await cast("AsyncCallback", streaming_callback)(StreamingChunk(content=mine.text, index=0))
        mine.waiting.set()
        try:
            await mine.proceed.wait()
        except asyncio.CancelledError:
            mine.cancelled.set()
            raise
        if mine.error is not None:
            raise mine.error
        return {"replies": [ChatMessage.from_assistant(mine.text * mine.chunks, meta=mine.meta)]}


@component
class SyncFake:
    """Streams from a thread without end, a chunk each time it may go on."""

    @component.output_types(replies=list[ChatMessage])
    def run(self, query: str, streaming_callback: StreamingCallbackT | None = None) -> dict[str, list[ChatMessage]]:
        mine = stage()
        try:
            for number in range(1_000_000):
                if number >= mine.chunks:
                    mine.thread_proceed.wait(timeout=30)
                if streaming_callback is not None:
                    streaming_callback(StreamingChunk(content=mine.text, index=0))
        finally:
            mine.thread_stopped.set()
        return {"replies": []}


def pipeline_of(generator: Any) -> Pipeline:
    """Return a pipeline of one component named `llm`."""
    pipeline = Pipeline()
    pipeline.add_component("llm", generator)
    return pipeline
