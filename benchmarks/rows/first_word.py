"""The first word: how much a server puts between the model and its reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.contestants.entrant import BARE, BRIDGE, GATEWAY, HAYHOOKS, HAYSTREAM, IN_PROCESS
from benchmarks.measures import Excess, Measure, percentile
from benchmarks.order import Order
from benchmarks.rows.row import Row

if TYPE_CHECKING:
    from benchmarks.contestants.lane import Lane
    from benchmarks.measures import Sample
    from benchmarks.rows.row import Ground, Trial

TIMES = 300
MEDIAN = Measure("first word, median", "ms", 2)
SLOWEST = Measure("first word, p99", "ms", 2)


def asking(pipeline: str, times: int) -> Trial:
    """Return a trial of short questions on an open connection, one after another."""

    async def trial(lane: Lane, ground: Ground) -> Sample:
        seconds = await lane.first_words(pipeline, Order(words=20), ground.size(times, 10))
        milliseconds = [1000 * value for value in seconds]
        return {MEDIAN: percentile(milliseconds, 0.5), SLOWEST: percentile(milliseconds, 0.99)}

    return trial


FIRST_WORD_ROW = Row(
    name="first-word",
    title="First word",
    about=f"{TIMES} questions one after another, on an open connection: from the question to the first text.",
    entrants=(IN_PROCESS, BARE, HAYSTREAM, GATEWAY, HAYHOOKS, BRIDGE),
    trial=asking("mock", TIMES),
    chart=MEDIAN,
    targets=(
        Excess("at most 2 ms over Haystack in process", MEDIAN, "haystream", "in-process", at_most=2),
        Excess("through the gateway at most 5 ms over it", MEDIAN, "gateway", "in-process", at_most=5),
    ),
    rounds=3,
    floor="Haystack in process plus bare grpc.aio: the pipeline's own start and one call.",
)
