"""A thousand browsers at once, each with a stream that goes slowly: what the gateway needs for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from benchmarks.contestants.entrant import GATEWAY, HAYHOOKS, HAYSTREAM
from benchmarks.measures import Limit, Measure
from benchmarks.order import Order
from benchmarks.rows.gateway.apart import gateway_bytes, gateway_cpu_seconds
from benchmarks.rows.idle import OPENING_SECONDS, leave, silence
from benchmarks.rows.paced import CPU, DELAY_99, sample, watch
from benchmarks.rows.row import LongRow

if TYPE_CHECKING:
    from benchmarks.contestants.lane import Lane, ServedLane
    from benchmarks.measures import Sample
    from benchmarks.readers.stream import Stream
    from benchmarks.rows.row import Ground

STREAMS = 1000
QUICK_STREAMS = 20
SECONDS = 25
WATCHED_SECONDS = 10
SETTLING_SECONDS = 2
RATE = 1

OPEN = Measure("open at once", "streams")
GATEWAY_CPU = Measure("of it the gateway's", "% of a core", 1)
MEMORY = Measure("memory a stream", "KiB", 1)
GATEWAY_MEMORY = Measure("of it the gateway's", "KiB", 1)


async def trial(lane: Lane, ground: Ground) -> Sample:
    """Open all streams, watch them while all are open, and read each to its end."""
    served = cast("ServedLane", lane)
    count = ground.size(STREAMS, QUICK_STREAMS)
    pause = ground.size(SETTLING_SECONDS, 1)
    order = Order(words=ground.size(SECONDS, 4) * RATE, per_second=RATE)
    await leave(served, await silence(served, max(1, count // 20)), pause)
    memory, gateway_memory = served.resident_bytes(), gateway_bytes(lane)
    asked = await opened(served, order, count)
    await asyncio.sleep(pause)
    gateway_seconds = gateway_cpu_seconds(lane)
    window = await watch(served, ground.size(WATCHED_SECONDS, 1))
    gateway_seconds = gateway_cpu_seconds(lane) - gateway_seconds
    at_once = sum(stream.is_answered and not stream.is_over for stream in asked)
    memory, gateway_memory = served.resident_bytes() - memory, gateway_bytes(lane) - gateway_memory
    await asyncio.gather(*(stream.end() for stream in asked))
    figures = sample(asked, order, window)
    return {
        OPEN: at_once,
        CPU: figures[CPU],
        GATEWAY_CPU: 100 * gateway_seconds / window.seconds,
        MEMORY: memory / 1024 / count,
        GATEWAY_MEMORY: gateway_memory / 1024 / count,
        DELAY_99: figures[DELAY_99],
    }


async def opened(served: ServedLane, order: Order, count: int) -> list[Stream]:
    """Ask for so many answers at once, and wait until the server has begun each."""
    asked = await served.ask("paced", order, count)
    async with asyncio.timeout(OPENING_SECONDS):
        for stream in asked:
            while not stream.is_answered:
                await stream.news()
    return asked


GATEWAY_OPEN_ROW = LongRow(
    name="gateway-open-1000",
    title="1,000 open streams through the gateway",
    about=(
        f"After a warm-up of 50 streams, 1,000 readers ask at once for {SECONDS} words each, one a second, each on a "
        f"connection of its own. All are open for {WATCHED_SECONDS} s, whose processor time and delays count, and at "
        "whose end it is seen how many are; then each is read to its end, and has to bring every word."
    ),
    entrants=(HAYSTREAM, GATEWAY, HAYHOOKS),
    trial=trial,
    chart=CPU,
    targets=(
        Limit("all 1,000 open at once, and all delivered", OPEN, "gateway", at_least=STREAMS),
        Limit("p99 delay under 250 ms", DELAY_99, "gateway", at_most=250),
        Limit("under 64 KiB each in the gateway", GATEWAY_MEMORY, "gateway", at_most=64),
    ),
    floor="gRPC direct: its streams share 20 connections, where browsers' take one each.",
)
