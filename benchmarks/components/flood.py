"""A model that could give far more than anyone takes, and counts what it has been able to give."""

from haystack import component
from haystack.dataclasses import ChatMessage, StreamingCallbackT

from benchmarks.components.saying import order_of, reply, say, say_from_thread
from benchmarks.counter import counting
from benchmarks.order import BLOCK


@component
class Flood:
    """Says blocks as fast as they are taken."""

    @component.output_types(replies=list[ChatMessage])
    def run(
        self, messages: list[ChatMessage], streaming_callback: StreamingCallbackT | None = None
    ) -> dict[str, list[ChatMessage]]:
        order = order_of(messages)
        with counting(order.counter) as count:
            for number in range(order.words):
                say_from_thread(streaming_callback, BLOCK)
                count(number + 1)
        return reply()

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self, messages: list[ChatMessage], streaming_callback: StreamingCallbackT | None = None
    ) -> dict[str, list[ChatMessage]]:
        order = order_of(messages)
        with counting(order.counter) as count:
            for number in range(order.words):
                await say(streaming_callback, BLOCK)
                count(number + 1)
        return reply()
