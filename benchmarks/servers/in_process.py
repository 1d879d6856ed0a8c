"""Haystack by itself: `run_async` with a callback that does nothing. Takes commands on standard input.

The event loop is asyncio's own, as `asyncio.run` gives it to everyone who uses Haystack this way.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Any, cast

from benchmarks.order import Order
from benchmarks.served import data_of, warmed_pipelines
from benchmarks.servers.listening import announce

if TYPE_CHECKING:
    from haystack import Pipeline
    from haystack.dataclasses import ChatMessage, StreamingChunk


async def ignore(chunk: StreamingChunk) -> None:
    """Do nothing, on the event loop."""


def ignore_in_thread(chunk: StreamingChunk) -> None:
    """Do nothing, in the component's thread."""


class Incomplete(Exception):
    """A reply is not what was ordered."""


def idle_callback(pipeline: Pipeline) -> Any:
    """Return the callback that fits the pipeline's component."""
    return ignore if hasattr(pipeline.get_component("llm"), "run_async") else ignore_in_thread


async def burst(pipeline: Pipeline, order: Order, streams: int) -> float:
    """Return the seconds that some runs at once take."""
    started = time.monotonic()
    outputs = await asyncio.gather(*(run(pipeline, order, idle_callback(pipeline)) for _ in range(streams)))
    seconds = time.monotonic() - started
    for output in outputs:
        reply = cast("ChatMessage", output["llm"]["replies"][0])
        if reply.text != order.answer():
            raise Incomplete(f"{len(reply.text or '')} characters of {len(order.answer())}")
    return seconds


async def first_word(pipeline: Pipeline, order: Order) -> float:
    """Return the seconds from the call to the first word."""
    heard: list[float] = []

    async def listen(_: StreamingChunk) -> None:
        if not heard:
            heard.append(time.monotonic())

    started = time.monotonic()
    await run(pipeline, order, listen)
    return heard[0] - started


async def run(pipeline: Pipeline, order: Order, callback: Any) -> dict[str, Any]:
    """Run a pipeline once."""
    data = data_of(order.question())
    data["llm"]["streaming_callback"] = callback
    return await pipeline.run_async(data)


def main() -> None:
    pipelines = warmed_pipelines()
    announce(0)
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            command = json.loads(line)
            pipeline, order = pipelines[command["pipeline"]], Order.of(command["question"])
            if command["do"] == "burst":
                answer: Any = runner.run(burst(pipeline, order, command["streams"]))
            else:
                answer = [runner.run(first_word(pipeline, order)) for _ in range(command["times"])]
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
