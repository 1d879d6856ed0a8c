"""Tells what goes on in the service's process that a test cannot see from outside."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
from collections import Counter

from haystack import Pipeline, component
from haystack.dataclasses import ChatMessage, StreamingCallbackT, StreamingChunk

from tests.fakes import pipeline_of, tell


@component
class Census:
    """Counts tasks by what they do, and with them runs, readers and calls."""

    @component.output_types(replies=list[ChatMessage])
    def run(self, query: str, streaming_callback: StreamingCallbackT | None = None) -> dict[str, list[ChatMessage]]:
        raise AssertionError("the service runs this component on its loop")

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self, query: str, streaming_callback: StreamingCallbackT | None = None
    ) -> dict[str, list[ChatMessage]]:
        gc.collect()  # what only a cycle still holds is no leak
        ctypes.CDLL(None).malloc_trim(0)  # nor is what the allocator keeps for later
        tasks = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks())
        await tell(streaming_callback, StreamingChunk(content=json.dumps(tasks), index=0))
        return {"replies": [ChatMessage.from_assistant("", meta={"finish_reason": "stop"})]}


def build() -> Pipeline:
    return pipeline_of(Census())
