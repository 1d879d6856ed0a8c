"""How every component here reads its order and says a word: as Haystack's own generators do."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, cast

from haystack.dataclasses import ChatMessage, StreamingChunk

from benchmarks.order import Order

if TYPE_CHECKING:
    from haystack.dataclasses import StreamingCallbackT

Replies = dict[str, list[ChatMessage]]


def order_of(messages: list[ChatMessage]) -> Order:
    """Return what the newest message orders."""
    return Order.of(messages[-1].text or "{}")


async def say(callback: StreamingCallbackT | None, text: str) -> None:
    """Say a word from the event loop."""
    if callback is not None:
        result = callback(StreamingChunk(content=text, index=0))
        if inspect.isawaitable(result):
            await cast("object", result)  # type: ignore[misc]  # isawaitable narrows to Awaitable


def say_from_thread(callback: StreamingCallbackT | None, text: str) -> None:
    """Say a word from a thread."""
    if callback is not None:
        callback(StreamingChunk(content=text, index=0))


def reply() -> Replies:
    """Return a short last word: the stream is what is measured."""
    return {"replies": [ChatMessage.from_assistant("done", meta={"finish_reason": "stop"})]}
