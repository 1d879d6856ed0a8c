"""What the gateway puts between a word and its reader, beside gRPC direct."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from benchmarks.contestants.entrant import GATEWAY, HAYHOOKS, HAYSTREAM, STREAM
from benchmarks.measures import Excess, Measure, percentile
from benchmarks.order import Order
from benchmarks.rows.first_word import MEDIAN, asking
from benchmarks.rows.paced import RATE, stamps
from benchmarks.rows.row import Row

if TYPE_CHECKING:
    from benchmarks.contestants.lane import Lane, ServedLane
    from benchmarks.measures import Sample
    from benchmarks.rows.row import Ground

TIMES = 100
STREAMS = 10
SECONDS = 4
QUICK_STREAMS = 2
WORD_50 = Measure("a word from the callback, p50", "ms", 2)
WORD_99 = Measure("a word from the callback, p99", "ms", 2)

first_words = asking("mock", TIMES)


async def trial(lane: Lane, ground: Ground) -> Sample:
    """Ask for first words one after another; then read some streams as models talk."""
    firsts = await first_words(lane, ground)
    order = Order(words=ground.size(SECONDS, 1) * RATE, per_second=RATE)
    asked = await cast("ServedLane", lane).ask("paced", order, ground.size(STREAMS, QUICK_STREAMS))
    await asyncio.gather(*(stream.end() for stream in asked))
    delays = [(arrived_ns - stamp.said_ns) / 1e6 for stream in asked for arrived_ns, stamp in stamps(stream, order)]
    return {**firsts, WORD_50: percentile(delays, 0.5), WORD_99: percentile(delays, 0.99)}


GATEWAY_DELAY_ROW = Row(
    name="gateway-delay",
    title="What the gateway adds to a word's delay",
    about=(
        f"{TIMES} questions one after another, on an open connection: from the question to the first text. Then "
        f"{STREAMS} streams x {RATE} words/s for {SECONDS} s: from the streaming callback with a word to its arrival."
    ),
    entrants=(HAYSTREAM, GATEWAY, HAYHOOKS, STREAM),
    trial=trial,
    chart=WORD_50,
    targets=(
        Excess("adds at most 2 ms to the first word", MEDIAN, "gateway", "haystream", at_most=2),
        Excess("adds at most 1 ms to a word, p50", WORD_50, "gateway", "haystream", at_most=1),
        Excess("adds at most 5 ms to a word, p99", WORD_99, "gateway", "haystream", at_most=5),
    ),
    rounds=3,
    warm_ups=1,
    profiled="gateway",
    floor="gRPC direct: a word comes to the gateway that way, and has one more hop before it.",
)
