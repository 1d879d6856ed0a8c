"""A reader that stops reading, while the model could go on and on."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from benchmarks.contestants.entrant import GATEWAY, HAYHOOKS, Entrant, lane, service
from benchmarks.counter import new_counter, read_counter
from benchmarks.measures import Limit, Measure
from benchmarks.order import BLOCK, Order
from benchmarks.readers.grpc_line import grpc_lines
from benchmarks.readers.stream import Incomplete, first_pieces
from benchmarks.rows.row import LongRow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from benchmarks.contestants.entrant import Environment
    from benchmarks.contestants.lane import Lane, ServedLane
    from benchmarks.measures import Sample
    from benchmarks.readers.grpc_line import GrpcLine
    from benchmarks.readers.http_line import HttpLine
    from benchmarks.readers.stream import Line, Stream
    from benchmarks.rows.row import Ground

MEBIBYTE = 1024 * 1024
MODEL_BYTES = 100_000_000
QUICK_BYTES = 20_000_000
WARM_UP_BYTES = 2_000_000
WAIT_SECONDS = 60
SAMPLING_SECONDS = 0.25
QUEUE_BYTES = MEBIBYTE
STOCK_WINDOW = 4 * MEBIBYTE  # what a stock gRPC client opens to a stream that fills it
SMALL_WINDOW = 65_535  # of a client that sets grpc.http2.bdp_probe=0

GROWTH = Measure("memory over the queue's budget", "MiB", 2)
GIVEN = Measure("given by the model", "MB", 1)
GOING_ON = Measure("given in the second half of the wait", "chunks")

Pause: TypeAlias = "Callable[[Line], None]"


@dataclass(frozen=True, slots=True)
class SlowLane:
    """A server, and how its reader stops. A reader that is taken for dead is not expected to come back."""

    served: ServedLane
    stop: Pause
    comes_back: bool = True

    async def burst(self, pipeline: str, order: Order, streams: int) -> float:
        """Read without a stop."""
        return await self.served.burst(pipeline, order, streams)

    async def first_words(self, pipeline: str, order: Order, times: int) -> list[float]:
        """Read without a stop."""
        return await self.served.first_words(pipeline, order, times)

    def cpu_seconds(self) -> float:
        """Return the processor time used so far."""
        return self.served.cpu_seconds()

    def hang_up(self) -> None:
        """Close all connections."""
        self.served.hang_up()


def leave_in_socket(line: Line) -> None:
    """Stop reading the socket: a process that hangs."""
    connection = cast("GrpcLine | HttpLine", line).connection
    connection.stop_reading()


def grant_nothing(line: Line) -> None:
    """Take no message: a program that is busy, while its gRPC library reads on until the window is full."""
    cast("GrpcLine", line).connection.stop_granting()


@asynccontextmanager
async def slow_grpc(
    window: int, stop: Pause, environment: Environment, *, comes_back: bool = True
) -> AsyncGenerator[Lane]:
    """Run the service for a reader with such a window."""
    async with (
        service(environment) as (process, port),
        lane((process,), partial(grpc_lines, port, window=window)) as served,
    ):
        yield SlowLane(served, stop, comes_back)


@asynccontextmanager
async def slow_http(entrant: Entrant, environment: Environment) -> AsyncGenerator[Lane]:
    """Run a contestant for a reader that leaves everything in its socket."""
    async with entrant.start(environment) as inner:
        yield SlowLane(cast("ServedLane", inner), leave_in_socket)


async def trial(lane: Lane, ground: Ground) -> Sample:
    """Stop for a while, see what piles up, read on, and check that everything comes."""
    slow = cast("SlowLane", lane)
    with tempfile.TemporaryDirectory(prefix="haystream-bench-") as folder:
        counter = Path(folder) / "said"
        new_counter(counter)
        await read_all(slow, flood(WARM_UP_BYTES, counter))
        return await stand_still(slow, flood(ground.size(MODEL_BYTES, QUICK_BYTES), counter), counter, ground)


def flood(size_bytes: int, counter: Path) -> Order:
    """Return the order of so much text."""
    return Order(words=size_bytes // len(BLOCK), counter=str(counter))


async def read_all(slow: SlowLane, order: Order) -> None:
    """Read without a stop."""
    (stream,) = await slow.served.ask("flood", order, 1)
    await check(stream, order)


async def stand_still(slow: SlowLane, order: Order, counter: Path, ground: Ground) -> Sample:
    """Do not read for the time of the wait."""
    new_counter(counter)
    before = slow.served.resident_bytes()
    (line,) = await slow.served.lines(1)
    stream = line.ask("flood", order)
    await first_pieces(stream)
    slow.stop(line)
    half = ground.size(WAIT_SECONDS, 6) / 2
    peak = await peak_bytes(slow.served, half)
    said_by_half = read_counter(counter)
    peak = max(peak, await peak_bytes(slow.served, half))
    said = read_counter(counter)
    if slow.comes_back:
        cast("GrpcLine | HttpLine", line).connection.go_on()
        await check(stream, order)
    return {
        GROWTH: (peak - before - QUEUE_BYTES) / MEBIBYTE,
        GIVEN: said * len(BLOCK) / 1e6,
        GOING_ON: said - said_by_half,
    }


async def peak_bytes(served: ServedLane, seconds: float) -> int:
    """Return the most memory that is in use in the meantime."""
    peak = 0
    for _ in range(int(seconds / SAMPLING_SECONDS)):
        await asyncio.sleep(SAMPLING_SECONDS)
        peak = max(peak, served.resident_bytes())
    return peak


async def check(stream: Stream, order: Order) -> None:
    """Read to the end. Raises Incomplete unless everything came."""
    await stream.end()
    stream.check_ending()
    size = sum(len(piece.text) for piece in stream.pieces())
    if size != order.words * len(BLOCK):
        raise Incomplete(f"{size} characters of {order.words * len(BLOCK)}")


BUSY = Entrant("haystream", "Haystream, 4 MiB window", partial(slow_grpc, STOCK_WINDOW, grant_nothing))
SMALL = Entrant("haystream-64k", "Haystream, 64 KiB window", partial(slow_grpc, SMALL_WINDOW, grant_nothing))
FROZEN = Entrant(
    "haystream-frozen",
    "Haystream, frozen reader",
    partial(slow_grpc, STOCK_WINDOW, leave_in_socket, comes_back=False),
)
GATEWAY_STOPPED = Entrant("gateway", "Haystream and its gateway", partial(slow_http, GATEWAY))
HAYHOOKS_STOPPED = Entrant("hayhooks", "hayhooks over FastAPI", partial(slow_http, HAYHOOKS))

SLOW_READER_ROW = LongRow(
    name="slow-reader",
    title="A reader that stops for 60 s while the model could give 100 MB",
    about=(
        "What a model gives goes first into the kernel's socket buffers and the reader's HTTP/2 window, then into the "
        "queue, and then the model waits. A gRPC program that takes no message still has a library that reads its "
        "socket until the window is full: 4 MiB in a stock client. A frozen reader takes nothing off its socket, and "
        "does not answer pings either: the service may take it for dead and let it go. All others read on after the "
        "wait, and get everything. Kernel buffers are in nobody's resident memory; what gRPC has framed for a socket "
        "that takes nothing is in the service's. The memory is the highest of the wait, the gateway's included."
    ),
    entrants=(BUSY, SMALL, FROZEN, GATEWAY_STOPPED, HAYHOOKS_STOPPED),
    trial=trial,
    chart=GROWTH,
    targets=(
        Limit("grows by less than 2 MiB over the queue's budget", GROWTH, "haystream", at_most=2),
        Limit("the same with a window of 64 KiB", GROWTH, "haystream-64k", at_most=2),
        Limit("the same for a frozen reader", GROWTH, "haystream-frozen", at_most=2),
        Limit("the model waits", GOING_ON, "haystream", at_most=0),
        Limit("the model waits, or is stopped, for a frozen reader", GOING_ON, "haystream-frozen", at_most=0),
        Limit("the model waits through the gateway", GOING_ON, "gateway", at_most=0),
    ),
    takes_turns=False,
    floor="The reader's window is the reader's: no server on gRPC can make it smaller.",
    settings={"HAYSTREAM_QUEUE_BYTES": str(QUEUE_BYTES), "HAYSTREAM_SLOW_READER_SECONDS": "600"},
)
