"""Paced streams, as models talk: what serving them costs, and how late each word comes."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import psutil

from benchmarks.contestants.entrant import BARE, GATEWAY, HAYHOOKS, HAYSTREAM, IN_PROCESS
from benchmarks.contestants.lane import InProcessLane
from benchmarks.measures import Limit, Measure, Ratio, percentile
from benchmarks.order import Order, Stamp
from benchmarks.readers.stream import Incomplete
from benchmarks.rows.row import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.contestants.lane import Lane, ServedLane
    from benchmarks.measures import Sample, Target
    from benchmarks.readers.stream import Stream
    from benchmarks.rows.row import Ground, Trial

RATE = 40
CPU = Measure("server CPU", "% of a core", 1)
DELAY_99 = Measure("delay, p99", "ms", 2)
DELAY_50 = Measure("delay, p50", "ms", 2)
TRANSIT_99 = Measure("from the callback, p99", "ms", 2)
READER_CPU = Measure("reader CPU", "% of a core", 1)
DELIVERED = Measure("delivered", "chunks/s")


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a trial that counts, when all streams run."""

    begin_ns: int
    end_ns: int
    server_seconds: float
    reader_seconds: float

    @property
    def seconds(self) -> float:
        """How long it was."""
        return (self.end_ns - self.begin_ns) / 1e9


def pacing(streams: int, seconds: int) -> Trial:
    """Return a trial of streams that last some seconds, the first and the last fifth of which do not count."""

    async def trial(lane: Lane, ground: Ground) -> Sample:
        length = ground.size(seconds, 1)
        order = Order(words=length * RATE, per_second=RATE)
        if isinstance(lane, InProcessLane):
            return await pacing_alone(lane, order, ground.size(streams, min(streams, 20)), length)
        served = cast("ServedLane", lane)
        asked = await served.ask("paced", order, ground.size(streams, min(streams, 20)))
        await asyncio.sleep(length / 5)
        window = await watch(served, length * 3 / 5)
        await asyncio.gather(*(stream.end() for stream in asked))
        return sample(asked, order, window)

    return trial


async def pacing_alone(lane: InProcessLane, order: Order, streams: int, length: int) -> Sample:
    """Return the figures of Haystack alone: what the words themselves cost, and how late they are without a network."""
    await lane.pace("paced", order, streams)
    await asyncio.sleep(length / 5)
    window = await watch(lane, length * 3 / 5)
    middle, worst = await lane.delays()
    return {
        CPU: 100 * window.server_seconds / window.seconds,
        DELAY_50: middle,
        DELAY_99: worst,
        TRANSIT_99: math.nan,
        DELIVERED: math.nan,
        READER_CPU: math.nan,
    }


async def watch(served: ServedLane | InProcessLane, seconds: float) -> Window:
    """Measure what both sides use in the meantime."""
    reader = psutil.Process()
    begin_ns, server_before, reader_before = time.monotonic_ns(), served.cpu_seconds(), sum(reader.cpu_times()[:2])
    await asyncio.sleep(seconds)
    server, own = served.cpu_seconds() - server_before, sum(reader.cpu_times()[:2]) - reader_before
    return Window(begin_ns, time.monotonic_ns(), server, own)


def sample(asked: Sequence[Stream], order: Order, window: Window) -> Sample:
    """Return the figures of a trial. Raises Incomplete unless every stream brought every word, in order."""
    late: list[float] = []
    transit: list[float] = []
    for stream in asked:
        for arrived_ns, stamp in stamps(stream, order):
            if window.begin_ns <= stamp.due_ns < window.end_ns:
                late.append((arrived_ns - stamp.due_ns) / 1e6)
                transit.append((arrived_ns - stamp.said_ns) / 1e6)
    return {
        CPU: 100 * window.server_seconds / window.seconds,
        DELAY_50: percentile(late, 0.5),
        DELAY_99: percentile(late, 0.99),
        TRANSIT_99: percentile(transit, 0.99),
        DELIVERED: len(late) / window.seconds,
        READER_CPU: 100 * window.reader_seconds / window.seconds,
    }


def stamps(stream: Stream, order: Order) -> list[tuple[int, Stamp]]:
    """Return a stream's stamps and when each came. Several that share a message share its arrival."""
    stream.check_ending()
    found = [(arrived_ns, stamp) for arrived_ns, text in stream.pieces() for stamp in Stamp.all_of(text)]
    if len(found) != order.words or any(a.due_ns >= b.due_ns for (_, a), (_, b) in pairwise(found)):
        raise Incomplete(f"{len(found)} stamps of {order.words}, or not in order")
    return found


AGAINST_HAYHOOKS: tuple[Target, ...] = (
    Ratio("server CPU at most 0.6 x hayhooks'", CPU, "haystream", "hayhooks", at_most=0.6),
    Ratio("p99 delay not above hayhooks'", DELAY_99, "haystream", "hayhooks", at_most=1),
    Ratio("p99 from the callback not above hayhooks'", TRANSIT_99, "haystream", "hayhooks", at_most=1),
)
ALONE: tuple[Target, ...] = (
    Limit("all delivered, p99 delay under 250 ms", DELAY_99, "haystream", at_most=250),
    # A server that is slow to take the calls has fewer streams going, and then it is easy to be on time.
    Limit("all streams at once: 40,000 chunks/s, less a hundredth", DELIVERED, "haystream", at_least=39_600),
)
ABOUT = (
    "Word k of a stream is due at its start + k / 40 s. The delay runs from that moment to the arrival, so that a busy "
    "event loop which makes the model itself late is counted, too; 'from the callback' begins when the word was said."
)


def paced_row(streams: int, seconds: int, rounds: int, targets: tuple[Target, ...]) -> Row:
    """Return the row of so many streams."""
    return Row(
        name=f"paced-{streams}",
        title=f"Paced, {streams:,} streams x {RATE} chunks/s",
        about=ABOUT,
        entrants=(IN_PROCESS, BARE, HAYSTREAM, GATEWAY, HAYHOOKS) if streams < 1000 else (IN_PROCESS, BARE, HAYSTREAM),  # noqa: PLR2004
        trial=pacing(streams, seconds),
        chart=CPU,
        targets=targets,
        rounds=rounds,
        warm_ups=int(streams < 1000),  # noqa: PLR2004 - the first fifth is enough
        floor="Haystack in process is what the words cost that no server can save, and bare grpc.aio is a timer and a "
        "message a word without Haystack: only fewer messages go below it, and words of one stream are 25 ms apart.",
    )


PACED_ROWS = (
    paced_row(100, 10, 3, AGAINST_HAYHOOKS),
    paced_row(300, 10, 3, AGAINST_HAYHOOKS),
    paced_row(1000, 15, 2, ALONE),
)
