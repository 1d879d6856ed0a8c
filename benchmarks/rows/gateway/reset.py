"""Readers whose connection is reset: how long the model goes on after that."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from benchmarks.contestants.entrant import GATEWAY, HAYHOOKS
from benchmarks.counter import new_counter, read_counter
from benchmarks.measures import Limit, Measure, percentile
from benchmarks.order import BLOCK, Order
from benchmarks.readers.stream import first_pieces
from benchmarks.rows.departure import PATIENCE_SECONDS, never_closes
from benchmarks.rows.paced import RATE
from benchmarks.rows.row import LongRow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.contestants.lane import Lane, ServedLane
    from benchmarks.measures import Sample
    from benchmarks.readers.http_line import HttpLine
    from benchmarks.rows.row import Ground

RESETS = 100
BEGINNING_SECONDS = 30
LOOKING_SECONDS = 0.002  # how soon it is seen; when it was, the model itself notes
STILL_SECONDS = 0.1
SOCKETS_BYTES = 8_000_000  # more than all sockets between a model and its reader hold

READING_50 = Measure("model stopped after, reading, p50", "ms", 1)
READING_99 = Measure("model stopped after, reading, p99", "ms", 1)
BLOCKED_50 = Measure("model stopped after, send blocked, p50", "ms", 1)
BLOCKED_99 = Measure("model stopped after, send blocked, p99", "ms", 1)
UNNOTICED = Measure(f"still at work after {PATIENCE_SECONDS} s", "% of resets")

Approach: TypeAlias = "Callable[[HttpLine, Order], Awaitable[None]]"
"""What leads from the first word to the reset."""


@dataclass(frozen=True, slots=True)
class Scene:
    """In what a reset happens: what is said, and what its reader does."""

    pipeline: str
    order: Order
    approach: Approach


async def read_on(_: HttpLine, order: Order) -> None:
    """Come to some place between two words."""
    await asyncio.sleep(random.uniform(1, 3) / order.per_second)  # noqa: S311 - a place, and no secret


async def block(line: HttpLine, order: Order) -> None:
    """Stop reading until nothing more can be sent: the model waits, or has given more than the sockets hold."""
    line.connection.stop_reading()
    before, said = -1, 0
    while before < said < SOCKETS_BYTES // (len(BLOCK) * order.blocks):
        await asyncio.sleep(STILL_SECONDS)
        before, said = said, read_counter(Path(order.counter))


# The flood pauses between its chunks, or else whoever does not hold it back would never come to send any. It is large
# enough to fill the sockets within a moment, and ends by itself where nobody stops it.
READING = Scene("paced", Order(words=30 * RATE, per_second=RATE), read_on)
BLOCKED = Scene("flood", Order(words=5_000, per_second=1_000, blocks=500), block)


async def trial(lane: Lane, ground: Ground) -> Sample:
    """Reset connections one after another, in one scene and then in the other."""
    served = cast("ServedLane", lane)
    count = ground.size(RESETS, 3)
    with tempfile.TemporaryDirectory(prefix="haystream-bench-") as folder:
        reading = await resets(served, READING, Path(folder), count)
        blocked = await resets(served, BLOCKED, Path(folder), count)
    noticed = [delay for delay in (*reading, *blocked) if delay is not None]
    return {
        READING_50: share(reading, 0.5),
        READING_99: share(reading, 0.99),
        BLOCKED_50: share(blocked, 0.5),
        BLOCKED_99: share(blocked, 0.99),
        UNNOTICED: 100 * (1 - len(noticed) / (len(reading) + len(blocked))),
    }


def share(delays: list[float | None], share_of_all: float) -> float:
    """Return the delay that this share of the resets that were noticed does not exceed."""
    return percentile([delay for delay in delays if delay is not None], share_of_all)


async def resets(served: ServedLane, scene: Scene, folder: Path, count: int) -> list[float | None]:
    """Return the milliseconds from each reset until the model was stopped; None where it goes on."""
    delays: list[float | None] = []
    while len(delays) < count and not never_closes(delays):
        counter, stopped = (folder / f"{scene.pipeline}-{len(delays)}-{name}" for name in ("said", "stopped"))
        new_counter(counter)
        new_counter(stopped)
        order = replace(scene.order, counter=str(counter), stopped=str(stopped))
        delays.append(await reset(served, scene, order))
    return delays


async def reset(served: ServedLane, scene: Scene, order: Order) -> float | None:
    """Reset a connection in the middle of an answer. Raises TimeoutError where there is none to be in the middle of."""
    (line,) = cast("list[HttpLine]", await served.dial(1))
    try:
        async with asyncio.timeout(BEGINNING_SECONDS):
            await first_pieces(line.ask(scene.pipeline, order))
            await scene.approach(line, order)
        reset_ns = time.monotonic_ns()
        line.connection.reset()
        return await milliseconds_to_stop(reset_ns, Path(order.stopped))
    finally:
        line.close()


async def milliseconds_to_stop(since_ns: int, stopped: Path) -> float | None:
    """Wait until the model has noted that it was stopped."""
    deadline_ns = since_ns + PATIENCE_SECONDS * 1_000_000_000
    while time.monotonic_ns() < deadline_ns:
        if stopped_ns := read_counter(stopped):
            return (stopped_ns - since_ns) / 1e6
        await asyncio.sleep(LOOKING_SECONDS)
    return None


GATEWAY_RESET_ROW = LongRow(
    name="gateway-reset",
    title="A browser's connection is reset",
    about=(
        f"{RESETS} resets (RST) between two words of a model that says {RATE} a second, and {RESETS} of readers who "
        f"have stopped reading a model that gives much more: once it waits, or has given {SOCKETS_BYTES / 1e6:.0f} MB, "
        "more than all sockets on the way hold, a send is blocked. The delay runs from the reset until the model is "
        "stopped, which it notes itself in the process where it runs. Who goes on for "
        f"{PATIENCE_SECONDS} s five times in a row is asked for no more."
    ),
    entrants=(GATEWAY, HAYHOOKS),
    trial=trial,
    chart=BLOCKED_99,
    targets=(
        Limit("noticed within 100 ms while it was read, p99", READING_99, "gateway", at_most=100),
        Limit("noticed within 100 ms while a send was blocked, p99", BLOCKED_99, "gateway", at_most=100),
        Limit("every one noticed", UNNOTICED, "gateway", at_most=0),
    ),
    floor="Two hops: the kernel tells the gateway, which cancels its call, and that tells the service.",
)
