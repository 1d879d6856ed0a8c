"""A pipeline built for each request, as people do whose callers bring their own keys, behind FastAPI.

Nothing is kept from one request to the next, so whose key it is makes no difference. The model runs on the event loop,
and a word costs no more than a queue.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from benchmarks.served import built, data_of
from benchmarks.servers.http_edge import serve

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from haystack.dataclasses import StreamingChunk


async def built_and_asked(name: str, question: str) -> AsyncGenerator[str]:
    """Yield what a new pipeline says."""
    queue: asyncio.Queue[str | None] = asyncio.Queue()

    async def callback(chunk: StreamingChunk) -> None:
        queue.put_nowait(chunk.content)

    async def work() -> None:
        data = data_of(question)
        data["llm"]["streaming_callback"] = callback
        try:
            await built(name).run_async(data)
        finally:
            queue.put_nowait(None)

    working = asyncio.create_task(work())
    try:
        while (text := await queue.get()) is not None:
            if text:
                yield text
    finally:
        working.cancel()


if __name__ == "__main__":
    serve(built_and_asked)
