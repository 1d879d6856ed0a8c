"""The streaming callback, which fits every component, wherever that calls it from."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, TypeAlias

from haystream_service.pipelines.chunks import events_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from haystack.dataclasses import StreamingChunk

    from haystream_service.run.run import Sink

    Callback: TypeAlias = Callable[[StreamingChunk], Awaitable[None] | None]


def callback_for(component: str, sink: Sink) -> Callback:
    """Return a callback. To be called on the event loop.

    Called on the loop it returns what is to be awaited; in a thread it blocks. Which of the two a component does cannot
    be told beforehand: one with `run_async` may hand its callback to a thread, as llama.cpp's does, and so does an
    Agent whose model is sync, or whose tools are. Haystack awaits whatever a callback returns to it on the loop. It is
    a function, not an object: Haystack deep-copies a component's inputs, and only functions stay what they are.
    """
    loop_thread = threading.get_ident()

    def callback(chunk: StreamingChunk) -> Awaitable[None] | None:
        events = events_of(chunk, component)
        if threading.get_ident() == loop_thread:
            return sink.put(events[0]) if len(events) == 1 else _All([sink.put(event) for event in events])
        for event in events:
            sink.put_from_thread(event)
        return None

    return callback


def as_coroutine_function(callback: Callback) -> Callback:
    """Return a callback for components that run on the loop and take nothing but a coroutine function."""

    async def coroutine_callback(chunk: StreamingChunk) -> None:
        put = callback(chunk)
        if put is not None:
            await put

    return coroutine_callback


class _All:
    """Several puts, or none, awaited as one; all has been put already."""

    def __init__(self, puts: list[Awaitable[None]]) -> None:
        self._puts = puts

    def __await__(self) -> Generator[Any, Any, None]:
        for put in self._puts:
            yield from put.__await__()


def quiet_misleading_warning() -> None:
    """Keep Haystack from warning, at every run, that the callback is no coroutine function and may block the loop."""
    logging.getLogger("haystack.dataclasses.streaming_chunk").addFilter(
        lambda record: "sync streaming callback was provided at runtime" not in record.getMessage()
    )
