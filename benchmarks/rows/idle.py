"""Open streams on which nothing happens: what each costs just by being there."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, cast

from benchmarks.contestants.entrant import BARE, GATEWAY, HAYHOOKS, HAYSTREAM
from benchmarks.measures import Limit, Measure
from benchmarks.order import Order
from benchmarks.readers.stream import Incomplete
from benchmarks.rows.row import LongRow

if TYPE_CHECKING:
    from benchmarks.contestants.lane import Lane, ServedLane
    from benchmarks.measures import Sample
    from benchmarks.readers.stream import Stream
    from benchmarks.rows.row import Ground

STREAMS = 1000
WATCHED_SECONDS = 30  # two heartbeats
SETTLING_SECONDS = 3
OPENING_SECONDS = 60
CPU = Measure("CPU of all", "% of a core", 2)
FIRST_MEMORY = Measure("memory a stream, first time", "KiB", 1)
SECOND_MEMORY = Measure("memory a stream, second time", "KiB", 1)


async def trial(lane: Lane, ground: Ground) -> Sample:
    """Open all streams twice; watch the second time. The first time shows what memory is taken from the system."""
    served = cast("ServedLane", lane)
    count = ground.size(STREAMS, 20)
    pause = ground.size(SETTLING_SECONDS, 1)
    await leave(served, await silence(served, max(1, count // 20)), pause)
    nothing = served.resident_bytes()
    first = await silence(served, count)
    full = served.resident_bytes()
    await leave(served, first, pause)
    empty = served.resident_bytes()
    second = await silence(served, count)
    await asyncio.sleep(pause)
    share = await cpu_share(served, ground.size(WATCHED_SECONDS, 1))
    full_again = served.resident_bytes()
    if any(stream.is_over for stream in second):
        raise Incomplete("a silent stream has ended")
    await leave(served, second, 0)
    return {
        CPU: 100 * share,
        FIRST_MEMORY: (full - nothing) / 1024 / count,
        SECOND_MEMORY: (full_again - empty) / 1024 / count,
    }


async def silence(served: ServedLane, count: int) -> list[Stream]:
    """Open streams, and wait until the server has answered each."""
    asked = await served.ask("silent", Order(), count)
    async with asyncio.timeout(OPENING_SECONDS):
        for stream in asked:
            while not stream.is_answered:
                await stream.news()
    return asked


async def leave(served: ServedLane, streams: list[Stream], seconds: float) -> None:
    """Leave all streams, and give the server a while."""
    for stream in streams:
        stream.leave()
    served.hang_up()
    await asyncio.sleep(seconds)


async def cpu_share(served: ServedLane, seconds: float) -> float:
    """Return how much of a core the server uses."""
    begin, before = time.monotonic(), served.cpu_seconds()
    await asyncio.sleep(seconds)
    return (served.cpu_seconds() - before) / (time.monotonic() - begin)


IDLE_ROW = LongRow(
    name="idle",
    title="1,000 open silent streams",
    about=(
        "The first time, after a warm-up of 50 streams, shows what a server takes from the system; the second time, "
        "what it takes beyond what it kept. The processor time is that of 30 s, two heartbeats of 15 s included."
    ),
    entrants=(BARE, HAYSTREAM, GATEWAY, HAYHOOKS),
    trial=trial,
    chart=CPU,
    targets=(
        Limit("under 1 % of a core, heartbeats included", CPU, "haystream", at_most=1),
        Limit("under 48 KiB each, the first time", FIRST_MEMORY, "haystream", at_most=48),
        Limit("under 48 KiB each, after as many before", SECOND_MEMORY, "haystream", at_most=48),
    ),
    is_profiled=True,
    floor="Bare grpc.aio with a handler that waits: the memory of a call and of its coroutine.",
)
