"""Says the question back, word by word. At a `|` it waits for its test."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from haystack.dataclasses import ChatMessage, StreamingCallbackT, StreamingChunk

from tests.fakes import OnLoop, pipeline_of, stage, tell

if TYPE_CHECKING:
    from haystack import Pipeline


async def recite(query: str, streaming_callback: StreamingCallbackT | None) -> dict[str, list[ChatMessage]]:
    """Give each run words of its own, so that a word which is lost, doubled or another's is seen."""
    mine = stage()
    mine.received.append({"query": query})
    try:
        for word in re.findall(r"\||[^\s|]*\s|[^\s|]+", query):
            if word == "|":
                mine.waiting.set()
                await mine.proceed.wait()
            else:
                await tell(streaming_callback, StreamingChunk(content=word, index=0))
    except asyncio.CancelledError:
        mine.cancelled.set()
        raise
    return mine.answer()


def build() -> Pipeline:
    return pipeline_of(OnLoop(recite))
