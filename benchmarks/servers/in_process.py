"""Haystack by itself: `run_async` with a callback that does nothing. Takes commands on standard input.

The event loop is uvloop's, as in the servers: what they add is to be seen, not what a loop costs.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Any, cast

import uvloop

from benchmarks.measures import percentile
from benchmarks.order import Order, Stamp
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


async def pace(pipeline: Pipeline, order: Order, streams: int) -> list[float]:
    """Return by how many milliseconds words were late when they were heard: p50 and p99."""
    late: list[float] = []

    async def listen(chunk: StreamingChunk) -> None:
        now = time.monotonic_ns()
        late.extend((now - stamp.due_ns) / 1e6 for stamp in Stamp.all_of(chunk.content))

    await asyncio.gather(*(run(pipeline, order, listen) for _ in range(streams)))
    if len(late) != streams * order.words:
        raise Incomplete(f"{len(late)} words of {streams * order.words}")
    return [percentile(late, 0.5), percentile(late, 0.99)]


async def run(pipeline: Pipeline, order: Order, callback: Any) -> dict[str, Any]:
    """Run a pipeline once."""
    data = data_of(order.question())
    data["llm"]["streaming_callback"] = callback
    return await pipeline.run_async(data)


def main() -> None:
    pipelines = warmed_pipelines()
    announce(0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            command = json.loads(line)
            pipeline, order = pipelines[command["pipeline"]], Order.of(command["question"])
            if command["do"] == "burst":
                answer: Any = runner.run(burst(pipeline, order, command["streams"]))
            elif command["do"] == "pace":
                answer = runner.run(pace(pipeline, order, command["streams"]))
            else:
                answer = [runner.run(first_word(pipeline, order)) for _ in range(command["times"])]
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
