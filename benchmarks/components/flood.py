"""A model that could give far more than anyone takes, and counts what it has been able to give."""

import asyncio
import time

from haystack import component
from haystack.dataclasses import ChatMessage, StreamingCallbackT

from benchmarks.components.saying import order_of, reply, say, say_from_thread
from benchmarks.counter import counting, noting_stop
from benchmarks.order import BLOCK


@component
class Flood:
    """Says blocks as fast as they are taken, or with a pause after each chunk.

    A chunk of several blocks is a text of its own, as a real model's is, and takes memory wherever it is kept.
    """

    @component.output_types(replies=list[ChatMessage])
    def run(
        self, messages: list[ChatMessage], streaming_callback: StreamingCallbackT | None = None
    ) -> dict[str, list[ChatMessage]]:
        order = order_of(messages)
        with noting_stop(order.stopped), counting(order.counter) as count:
            for number in range(order.words):
                say_from_thread(streaming_callback, BLOCK * order.blocks)
                count(number + 1)
                if order.per_second:
                    time.sleep(1 / order.per_second)
        return reply()

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self, messages: list[ChatMessage], streaming_callback: StreamingCallbackT | None = None
    ) -> dict[str, list[ChatMessage]]:
        order = order_of(messages)
        with noting_stop(order.stopped), counting(order.counter) as count:
            for number in range(order.words):
                await say(streaming_callback, BLOCK * order.blocks)
                count(number + 1)
                if order.per_second:
                    await asyncio.sleep(1 / order.per_second)
        return reply()
