"""A model that thinks for ever."""

import asyncio

from haystack import component
from haystack.dataclasses import ChatMessage, StreamingCallbackT


@component
class Silent:
    """Never says a word, and holds nothing but its own coroutine."""

    @component.output_types(replies=list[ChatMessage])
    def run(
        self, messages: list[ChatMessage], streaming_callback: StreamingCallbackT | None = None
    ) -> dict[str, list[ChatMessage]]:
        raise NotImplementedError("silence in a thread would only measure threads")

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self, messages: list[ChatMessage], streaming_callback: StreamingCallbackT | None = None
    ) -> dict[str, list[ChatMessage]]:
        await asyncio.get_running_loop().create_future()
        return {"replies": []}
