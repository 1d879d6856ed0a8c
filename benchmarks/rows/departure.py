"""A reader that leaves: how long the provider's socket stays open, and the model at work, after that."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from benchmarks.contestants.entrant import BRIDGE, GATEWAY, HAYHOOKS, HAYSTREAM
from benchmarks.measures import Limit, Measure, percentile
from benchmarks.order import Order
from benchmarks.readers.stream import first_pieces
from benchmarks.rows.row import LongRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.contestants.lane import Lane, ServedLane
    from benchmarks.measures import Sample
    from benchmarks.rows.row import Ground, Row, Trial

DEPARTURES = 100
PATIENCE_SECONDS = 3
ENOUGH_IN_A_ROW = 5  # a server that never closes is known by now
CHUNK_SECONDS = 0.1
P50 = Measure("socket closed after, p50", "ms", 1)
P99 = Measure("socket closed after, p99", "ms", 1)
OPEN = Measure("still open after 3 s", "% of departures")
TRIED = Measure("departures", "times")

STALLED = Order(words_then_stall=5)
DRIPPING = Order(words_then_stall=5, stall_seconds=CHUNK_SECONDS)


def departing(pipeline: str, order: Order) -> Trial:
    """Return a trial of departures in the middle of an answer, one after another."""

    async def trial(lane: Lane, ground: Ground) -> Sample:
        served = cast("ServedLane", lane)
        delays: list[float | None] = []
        while len(delays) < ground.size(DEPARTURES, 5) and not never_closes(delays):
            delays.append(await depart(served, ground, pipeline, order, hangs_up=bool(len(delays) % 2)))
        closed = [delay for delay in delays if delay is not None]
        return {
            P50: percentile(closed, 0.5),
            P99: percentile(closed, 0.99),
            OPEN: 100 * (1 - len(closed) / len(delays)),
            TRIED: len(delays),
        }

    return trial


def never_closes(delays: Sequence[float | None]) -> bool:
    """Whether the last departures leave nothing to be expected of more."""
    last = delays[-ENOUGH_IN_A_ROW:]
    return len(last) == ENOUGH_IN_A_ROW and all(delay is None for delay in last)


async def depart(served: ServedLane, ground: Ground, pipeline: str, order: Order, *, hangs_up: bool) -> float | None:
    """Leave an answer, by cancelling the call or by hanging up; return the milliseconds until its socket was closed."""
    named = replace(order, name=secrets.token_hex(8))
    closing = ground.provider.closing(named.name)
    (line,) = await served.dial(1)
    stream = line.ask(pipeline, named)
    await first_pieces(stream)
    await asyncio.sleep(0.02)
    left_ns = time.monotonic_ns()
    if hangs_up:
        line.close()
    else:
        stream.leave()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return (await closing - left_ns) / 1e6
    except TimeoutError:
        return None
    finally:
        line.close()


def departure_row(kind: str, pipeline: str, order: Order, about: str, targets: tuple[Limit, ...]) -> Row:
    """Return the row of one kind of generator."""
    return LongRow(
        name=f"departure-{kind}",
        title=f"A reader leaves, OpenAIChatGenerator, {kind}",
        about=(
            f"{DEPARTURES} departures, half of them cancel the call and half hang up. {about} Whose socket is still "
            f"open after {PATIENCE_SECONDS} s at {ENOUGH_IN_A_ROW} departures in a row is asked for no more of them."
        ),
        entrants=(HAYSTREAM, GATEWAY, HAYHOOKS, BRIDGE),
        trial=departing(pipeline, order),
        chart=P99,
        targets=targets,
    )


DEPARTURE_ROWS = (
    departure_row(
        "async",
        "openai_async",
        STALLED,
        "The provider has stalled: nothing but the reader's leaving can end the call.",
        (
            Limit("p99 under 50 ms", P99, "haystream", at_most=50),
            Limit("none left open", OPEN, "haystream", at_most=0),
            Limit("p99 under 50 ms through the gateway", P99, "gateway", at_most=50),
        ),
    ),
    departure_row(
        "sync",
        "openai_threaded",
        DRIPPING,
        "The provider goes on with a chunk each 100 ms: a thread can be stopped at its next chunk.",
        (
            Limit("by the next chunk: p99 under 100 ms and 50 more", P99, "haystream", at_most=150),
            Limit("none left open", OPEN, "haystream", at_most=0),
        ),
    ),
)
