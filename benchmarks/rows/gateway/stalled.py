"""Browsers that stop reading for a minute: what that leaves in the gateway."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from benchmarks.contestants.entrant import GATEWAY, HAYHOOKS, STREAM
from benchmarks.counter import new_counter, read_counter
from benchmarks.measures import Limit, Measure
from benchmarks.order import BLOCK, Order
from benchmarks.readers.stream import Incomplete, first_pieces
from benchmarks.rows.row import LongRow
from benchmarks.rows.slow_reader import GOING_ON, MEBIBYTE, SAMPLING_SECONDS, WAIT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.contestants.lane import Lane, ServedLane
    from benchmarks.measures import Sample
    from benchmarks.readers.http_line import HttpLine
    from benchmarks.readers.stream import Stream
    from benchmarks.rows.row import Ground

READERS = 10
MODEL_BYTES = 10_000_000  # for each of them: more than the sockets on the way take
QUICK_BYTES = 2_000_000
WARM_UP_BYTES = 1_000_000
CHUNK = BLOCK * 8
CHUNKS_PER_SECOND = 1_000
PATIENCE_SECONDS = 2 * WAIT_SECONDS

GROWTH = Measure("memory a reader, where it reads from", "MiB", 2)
ALL_GROWTH = Measure("memory a reader, of all", "MiB", 2)
GIVEN = Measure("given by the model, a reader", "MB", 1)


async def trial(lane: Lane, ground: Ground) -> Sample:
    """Stop reading, all readers at once; see what piles up, read on, and check that everything comes."""
    served = cast("ServedLane", lane)
    with tempfile.TemporaryDirectory(prefix="haystream-bench-") as folder:
        orders = [order_for(Path(folder) / str(number)) for number in range(READERS)]
        await read_all(served, sized(orders, WARM_UP_BYTES))
        return await stand_still(served, sized(orders, ground.size(MODEL_BYTES, QUICK_BYTES)), ground)


def order_for(counter: Path) -> Order:
    """Return an order of a flood that leaves its event loop time for others."""
    return Order(per_second=CHUNKS_PER_SECOND, blocks=len(CHUNK) // len(BLOCK), counter=str(counter))


def sized(orders: Sequence[Order], size_bytes: int) -> list[Order]:
    """Return orders of so much text each, whose counters stand at zero."""
    for order in orders:
        new_counter(Path(order.counter))
    return [replace(order, words=size_bytes // len(CHUNK)) for order in orders]


async def read_all(served: ServedLane, orders: Sequence[Order]) -> None:
    """Read without a stop."""
    lines = await served.lines(len(orders))
    await check([line.ask("flood", order) for line, order in zip(lines, orders, strict=True)], orders)


async def stand_still(served: ServedLane, orders: Sequence[Order], ground: Ground) -> Sample:
    """Do not read for the time of the wait."""
    lines = cast("Sequence[HttpLine]", await served.lines(len(orders)))
    before = memory(served)
    streams = [line.ask("flood", order) for line, order in zip(lines, orders, strict=True)]
    await asyncio.gather(*(begin(line, stream) for line, stream in zip(lines, streams, strict=True)))
    half = ground.size(WAIT_SECONDS, 2) / 2
    peaks = [await peak(served, half)]
    said_by_half = said(orders)
    peaks.append(await peak(served, half))
    said_in_all = said(orders)
    for line in lines:
        line.connection.go_on()
    await check(streams, orders)
    front, everything = (max(values) - old for *values, old in zip(*peaks, before, strict=True))
    return {
        GROWTH: front / MEBIBYTE / READERS,
        ALL_GROWTH: everything / MEBIBYTE / READERS,
        GIVEN: said_in_all * len(CHUNK) / 1e6 / READERS,
        GOING_ON: said_in_all - said_by_half,
    }


async def begin(line: HttpLine, stream: Stream) -> None:
    """Read the first words, and leave in the socket whatever comes after them."""
    await first_pieces(stream)
    line.connection.stop_reading()


def memory(served: ServedLane) -> tuple[int, int]:
    """Return the memory of the process that readers are connected to, and that of all."""
    return served.processes[0].resident_bytes(), served.resident_bytes()


async def peak(served: ServedLane, seconds: float) -> tuple[int, int]:
    """Return the most of each that is in use in the meantime."""
    samples: list[tuple[int, int]] = []
    for _ in range(int(seconds / SAMPLING_SECONDS)):
        await asyncio.sleep(SAMPLING_SECONDS)
        samples.append(memory(served))
    return max(front for front, _ in samples), max(everything for _, everything in samples)


def said(orders: Sequence[Order]) -> int:
    """Return how many chunks the models have given to all readers."""
    return sum(read_counter(Path(order.counter)) for order in orders)


async def check(streams: Sequence[Stream], orders: Sequence[Order]) -> None:
    """Read to the end. Raises Incomplete unless every chunk came to every reader."""
    for stream, order in zip(streams, orders, strict=True):
        await stream.end()
        stream.check_ending()
        text = "".join(piece.text for piece in stream.pieces())
        if text != CHUNK * order.words:
            raise Incomplete(f"{len(text)} characters of {order.words * len(CHUNK)}, or not the right ones")


GATEWAY_STALLED_ROW = LongRow(
    name="gateway-stalled",
    title=f"{READERS} browsers that stop reading for {WAIT_SECONDS} s",
    about=(
        f"The model could give each of them {MODEL_BYTES / 1e6:.0f} MB, up to {CHUNKS_PER_SECOND:,} chunks of "
        f"{len(CHUNK)} bytes a second. They take nothing off their sockets for {WAIT_SECONDS} s, all at once, so that "
        "what each costs stands out; then they read on, and everything has to come. Kernel buffers are in nobody's "
        "resident memory, and hold some 4 MB for each here. The memory is the highest of the wait, against that after "
        f"a warm-up in which all read {WARM_UP_BYTES / 1e6:.0f} MB: that of the process which readers are connected "
        "to, and that of all, the service behind the gateway included. Gateway and service have been told to bear with "
        f"slow readers for {PATIENCE_SECONDS} s."
    ),
    entrants=(GATEWAY, HAYHOOKS, STREAM),
    trial=trial,
    chart=GROWTH,
    targets=(
        Limit("under 1 MiB a reader in the gateway", GROWTH, "gateway", at_most=1),
        Limit("the model waits", GOING_ON, "gateway", at_most=0),
    ),
    takes_turns=False,
    settings={"HAYSTREAM_SLOW_READER_SECONDS": str(PATIENCE_SECONDS)},
)
