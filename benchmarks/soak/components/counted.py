"""A model that counts, at a steady pace or as fast as it is taken."""

import asyncio
import time
from collections.abc import Iterator

from haystack import component
from haystack.dataclasses import ChatMessage, StreamingCallbackT

from benchmarks.components.saying import reply, say, say_from_thread
from benchmarks.soak.order import LETTER, Order


@component
class Counted:
    """Says the words of its order, on the event loop or in a thread. `letter` pads them."""

    def __init__(self, letter: str = LETTER) -> None:
        self._letter = letter

    @component.output_types(replies=list[ChatMessage])
    def run(
        self, messages: list[ChatMessage], streaming_callback: StreamingCallbackT | None = None
    ) -> dict[str, list[ChatMessage]]:
        for wait, word in self._words(messages):
            if wait:
                time.sleep(wait)
            say_from_thread(streaming_callback, word)
        return reply()

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self, messages: list[ChatMessage], streaming_callback: StreamingCallbackT | None = None
    ) -> dict[str, list[ChatMessage]]:
        for wait, word in self._words(messages):
            if wait:
                await asyncio.sleep(wait)
            await say(streaming_callback, word)
        return reply()

    def _words(self, messages: list[ChatMessage]) -> Iterator[tuple[float, str]]:
        """Yield each word, and how long to wait before it; nothing when late, so that a schedule is caught up with."""
        order = Order.of(messages[-1].text or "{}")
        start = time.monotonic()
        for number in range(order.words):
            due = start + number / order.per_second if order.per_second else 0
            yield max(0, due - time.monotonic()), order.word(number, self._letter)
