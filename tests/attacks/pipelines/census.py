"""Tells what goes on in the service's process that a test cannot see from outside."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
from collections import Counter
from typing import TYPE_CHECKING

from haystack.dataclasses import ChatMessage, StreamingCallbackT, StreamingChunk

from tests.fakes import OnLoop, pipeline_of, replied, tell

if TYPE_CHECKING:
    from haystack import Pipeline


async def count(_query: str, streaming_callback: StreamingCallbackT | None) -> dict[str, list[ChatMessage]]:
    """Count tasks by what they do, and with them runs, readers and calls."""
    gc.collect()  # what only a cycle still holds is no leak
    ctypes.CDLL(None).malloc_trim(0)  # nor is what the allocator keeps for later
    tasks = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks())
    await tell(streaming_callback, StreamingChunk(content=json.dumps(tasks), index=0))
    return replied("")


def build() -> Pipeline:
    return pipeline_of(OnLoop(count))
