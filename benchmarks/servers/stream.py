"""Haystack's own `Pipeline.stream()` behind FastAPI."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from benchmarks.served import data_of, warmed_pipelines
from benchmarks.servers.http_edge import serve

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


def main() -> None:
    pipelines = warmed_pipelines()

    async def texts(pipeline: str, question: str) -> AsyncGenerator[str]:
        async with aclosing(pipelines[pipeline].stream(data_of(question))) as chunks:
            async for chunk in chunks:
                if chunk.content:
                    yield chunk.content

    serve(texts)


if __name__ == "__main__":
    main()
