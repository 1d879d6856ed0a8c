"""Many runs one after another, a tenth of them left at random: what stays behind in the service."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import TYPE_CHECKING, cast

from benchmarks.contestants.entrant import HAYSTREAM
from benchmarks.measures import Limit, Measure
from benchmarks.order import Order
from benchmarks.rows.paced import stamps
from benchmarks.rows.row import LongRow
from haystream.v1 import chat_pb2

if TYPE_CHECKING:
    from benchmarks.contestants.lane import Lane, ServedLane
    from benchmarks.measures import Sample
    from benchmarks.readers.grpc_line import GrpcLine, GrpcStream
    from benchmarks.readers.stream import Line
    from benchmarks.rows.row import Ground

RUNS = 10_000
WARM_UP_RUNS = 500
AT_ONCE = 8
WARM_UP_AT_ONCE = 40  # so that the service's pool has all its threads, those for orphans included
MAX_RUNS = 64
TTL_SECONDS = 1
SETTLING_SECONDS = 3  # the TTL and some more
RUN = Order(words=20, per_second=2000)
RUN_SECONDS = RUN.words / RUN.per_second
PIPELINES = ("paced", "paced_threaded")
RESUME = "/haystream.v1.ChatService/Resume"
REMEMBERED = 50

MEMORY = Measure("memory after, against before", "%", 2)
THREADS = Measure("threads more than before", "threads")
PLACES = Measure("places lost", "runs")
LOGS = Measure("logs left", "runs")
SPEED = Measure("speed", "runs/s")


async def trial(lane: Lane, ground: Ground) -> Sample:
    """Let the service work, let it rest, and look for what is left."""
    served = cast("ServedLane", lane)
    await runs(served, ground.size(WARM_UP_RUNS, 100), WARM_UP_AT_ONCE)
    await asyncio.sleep(SETTLING_SECONDS)
    memory, threads = served.resident_bytes(), served.processes[0].threads()
    count = ground.size(RUNS, 500)
    begin = asyncio.get_running_loop().time()
    ids = await runs(served, count, AT_ONCE)
    seconds = asyncio.get_running_loop().time() - begin
    await asyncio.sleep(SETTLING_SECONDS)
    return {
        MEMORY: 100 * (served.resident_bytes() - memory) / memory,
        THREADS: served.processes[0].threads() - threads,
        PLACES: await places_lost(served),
        LOGS: await logs_left(served, ids),
        SPEED: count / seconds,
    }


async def runs(served: ServedLane, count: int, at_once: int) -> deque[str]:
    """Run a few at a time; return the ids of the last ones."""
    ids: deque[str] = deque(maxlen=REMEMBERED)

    async def one(line: Line, number: int) -> None:
        await one_run(cast("GrpcLine", line).ask(PIPELINES[number % 2], RUN), ids)

    await served.in_turn(count, at_once, one)
    return ids


async def one_run(stream: GrpcStream, ids: deque[str]) -> None:
    """Read a run to its end or, one time in ten, leave it somewhere."""
    if random.random() < 0.1:  # noqa: S311, PLR2004 - a tenth
        await asyncio.sleep(random.uniform(0, 1.2) * RUN_SECONDS)  # noqa: S311
        stream.leave()
        return
    await stream.end()
    stamps(stream, RUN)
    ids.append(stream.run_id())


async def places_lost(served: ServedLane) -> int:
    """Return how many of the service's places for runs are taken although nobody runs anything."""
    asked = await served.ask("silent", Order(), MAX_RUNS)
    await asyncio.sleep(1)
    refused = sum(stream.is_over for stream in asked)
    for stream in asked:
        stream.leave()
    return refused


async def logs_left(served: ServedLane, ids: deque[str]) -> int:
    """Return how many of the last runs can still be resumed."""
    line = cast("GrpcLine", (await served.lines(1))[0])
    left = 0
    for run_id in ids:
        call = line.call(RESUME, chat_pb2.ResumeRequest(run_id=run_id))
        await call.end()
        left += call.status == 0
    return left


CHURN_ROW = LongRow(
    name="churn",
    title="10,000 runs one after another, a tenth of them left at random",
    about=(
        f"{AT_ONCE} at a time, by turns on the event loop and in threads, after a warm-up of {WARM_UP_RUNS}. Then, "
        f"after the replay's time to live of {TTL_SECONDS} s, the service is compared with itself before; all "
        f"{MAX_RUNS} places are taken at once, which shows that no run is still counted, and the last runs are asked "
        "for once more."
    ),
    entrants=(HAYSTREAM,),
    trial=trial,
    chart=MEMORY,
    targets=(
        Limit("memory after = memory before within 5 %", MEMORY, "haystream", at_most=5),
        Limit("no thread left", THREADS, "haystream", at_most=0),
        Limit("no run left", PLACES, "haystream", at_most=0),
        Limit("no log left", LOGS, "haystream", at_most=0),
    ),
    settings={
        "HAYSTREAM_MAX_RUNS": str(MAX_RUNS),
        "HAYSTREAM_MAX_SYNC_RUNS": "8",
        "HAYSTREAM_REPLAY_SECONDS": str(TTL_SECONDS),
    },
)
