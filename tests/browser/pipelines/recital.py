"""Says the question back, word by word. At a `|` it waits for its test."""

import asyncio
import re

from haystack import Pipeline, component
from haystack.dataclasses import ChatMessage, StreamingCallbackT, StreamingChunk

from tests.fakes import pipeline_of, stage, tell


@component
class Recital:
    """Each run has words of its own, so that a word which is lost, doubled or another's is seen."""

    @component.output_types(replies=list[ChatMessage])
    def run(self, query: str, streaming_callback: StreamingCallbackT | None = None) -> dict[str, list[ChatMessage]]:
        raise AssertionError("the service runs this component on its loop")

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self, query: str, streaming_callback: StreamingCallbackT | None = None
    ) -> dict[str, list[ChatMessage]]:
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
    return pipeline_of(Recital())
