"""A model that keeps time: word k is due at start + k / rate, whatever happened to the words before."""

import asyncio
import random
import time
from collections.abc import Iterator

from haystack import component
from haystack.dataclasses import ChatMessage, StreamingCallbackT

from benchmarks.components.saying import order_of, reply, say, say_from_thread
from benchmarks.counter import noting_stop
from benchmarks.order import Order, Stamp

NANOSECONDS = 1_000_000_000


def schedule(order: Order) -> Iterator[int]:
    """Yield when each word is due, by `time.monotonic_ns`. Streams begin at random places within one period."""
    period = NANOSECONDS / order.per_second
    start = time.monotonic_ns() + random.random() * period  # noqa: S311 - spreads load
    for number in range(order.words):
        yield int(start + number * period)


def seconds_until(due_ns: int) -> float:
    """Return how long to sleep; nothing when late, so that a schedule is caught up with."""
    return max(0, due_ns - time.monotonic_ns()) / NANOSECONDS


@component
class Paced:
    """Says stamps at a steady rate, on the event loop or in a thread."""

    @component.output_types(replies=list[ChatMessage])
    def run(
        self, messages: list[ChatMessage], streaming_callback: StreamingCallbackT | None = None
    ) -> dict[str, list[ChatMessage]]:
        order = order_of(messages)
        with noting_stop(order.stopped):
            for due_ns in schedule(order):
                if wait := seconds_until(due_ns):
                    time.sleep(wait)
                say_from_thread(streaming_callback, Stamp(due_ns, time.monotonic_ns()).text())
        return reply()

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self, messages: list[ChatMessage], streaming_callback: StreamingCallbackT | None = None
    ) -> dict[str, list[ChatMessage]]:
        order = order_of(messages)
        with noting_stop(order.stopped):
            for due_ns in schedule(order):
                if wait := seconds_until(due_ns):
                    await asyncio.sleep(wait)
                await say(streaming_callback, Stamp(due_ns, time.monotonic_ns()).text())
        return reply()
