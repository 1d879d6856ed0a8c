"""hayhooks' `async_streaming_generator` behind FastAPI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hayhooks import async_streaming_generator  # type: ignore[import-untyped]  # brings no types
from haystack.dataclasses import StreamingChunk

from benchmarks.served import data_of, warmed_pipelines
from benchmarks.servers.http_edge import serve

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


def main() -> None:
    pipelines = warmed_pipelines()

    async def texts(pipeline: str, question: str) -> AsyncGenerator[str]:
        chunks = async_streaming_generator(
            pipelines[pipeline],
            pipeline_run_args=data_of(question),
            allow_sync_streaming_callbacks=True,  # the pipelines that only know threads need it; others ignore it
        )
        try:
            async for chunk in chunks:
                if isinstance(chunk, StreamingChunk) and chunk.content:
                    yield chunk.content
        finally:
            await chunks.aclose()

    serve(texts)


if __name__ == "__main__":
    main()
