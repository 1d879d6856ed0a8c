"""The bridge from a thread to FastAPI that blogs show: each chunk waits until the event loop has taken it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from benchmarks.served import data_of, warmed_pipelines
from benchmarks.servers.http_edge import serve

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from haystack import Pipeline
    from haystack.dataclasses import StreamingChunk


async def bridged(pipeline: Pipeline, question: str) -> AsyncGenerator[str]:
    """Yield what a pipeline says in a thread of its own."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | None] = asyncio.Queue()

    def callback(chunk: StreamingChunk) -> None:
        asyncio.run_coroutine_threadsafe(queue.put(chunk.content), loop).result()

    def work() -> None:
        data = data_of(question)
        data["llm"]["streaming_callback"] = callback
        try:
            pipeline.run(data)
        finally:
            asyncio.run_coroutine_threadsafe(queue.put(None), loop).result()

    threading.Thread(target=work, daemon=True).start()
    while (text := await queue.get()) is not None:
        yield text


def main() -> None:
    pipelines = warmed_pipelines()
    serve(lambda pipeline, question: bridged(pipelines[pipeline], question))


if __name__ == "__main__":
    main()
