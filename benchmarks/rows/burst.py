"""Bursts: the model gives everything at once, and what is measured is how fast it gets through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.contestants.entrant import BARE, BRIDGE, GATEWAY, HAYHOOKS, HAYSTREAM, IN_PROCESS
from benchmarks.measures import Measure, Ratio
from benchmarks.order import Order
from benchmarks.rows.row import Row

if TYPE_CHECKING:
    from benchmarks.contestants.lane import Lane
    from benchmarks.measures import Sample
    from benchmarks.rows.row import Ground, Trial

SPEED = Measure("speed", "chunks/s")
CPU = Measure("CPU a chunk", "us", 1)  # of the server; less at the mercy of other work on the machine than the speed
MOCK_WORDS = 40_000  # in all, over however many streams
OPENAI_WORDS = 6_000
QUICK_WORDS = 400


def bursting(pipeline: str, streams: int, words: int) -> Trial:
    """Return a trial that asks for some words in all, shared out over the streams."""

    async def trial(lane: Lane, ground: Ground) -> Sample:
        order = Order(words=max(1, ground.size(words, QUICK_WORDS) // streams))
        before = lane.cpu_seconds()
        seconds = await lane.burst(pipeline, order, streams)
        chunks = order.words * streams
        return {SPEED: chunks / seconds, CPU: 1e6 * (lane.cpu_seconds() - before) / chunks}

    return trial


def mock_row(streams: int) -> Row:
    """Return the row of Haystack's mock generator."""
    return Row(
        name=f"burst-mock-{streams}",
        title=f"Burst, MockChatGenerator, {streams} at once",
        about=f"{MOCK_WORDS:,} chunks in all, from the first question to the last byte of the last answer.",
        entrants=(IN_PROCESS, BARE, HAYSTREAM, GATEWAY, HAYHOOKS, BRIDGE),
        trial=bursting("mock", streams, MOCK_WORDS),
        chart=SPEED,
        targets=(
            Ratio("at least 1.5 x hayhooks", SPEED, "haystream", "hayhooks", at_least=1.5),
            Ratio("at least half of Haystack in process", SPEED, "haystream", "in-process", at_least=0.5),
        ),
        floor="Haystack in process is what the pipeline itself costs; bare grpc.aio is a write per chunk.",
    )


def openai_row(kind: str, pipeline: str, streams: int) -> Row:
    """Return a row of OpenAIChatGenerator on the benchmark's provider."""
    return Row(
        name=f"burst-openai-{kind}-{streams}",
        title=f"Burst, OpenAIChatGenerator, {kind}, {streams} at once",
        about=f"{OPENAI_WORDS:,} chunks in all, from a provider that sends each answer with one write.",
        entrants=(IN_PROCESS, HAYSTREAM, GATEWAY, HAYHOOKS, BRIDGE),
        trial=bursting(pipeline, streams, OPENAI_WORDS),
        chart=SPEED,
        targets=(Ratio("at least 0.85 x Haystack in process", SPEED, "haystream", "in-process", at_least=0.85),),
        floor="Haystack in process: parsing the provider's chunks is most of the work.",
    )


BURST_ROWS = (
    mock_row(1),
    mock_row(20),
    openai_row("async", "openai_async", 1),
    openai_row("async", "openai_async", 20),
    openai_row("sync", "openai_threaded", 1),
    openai_row("sync", "openai_threaded", 20),
)
