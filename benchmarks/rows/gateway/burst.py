"""Bursts through the gateway: how much of gRPC's speed browsers get, and what the gateway's part of the work is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.contestants.entrant import GATEWAY, HAYHOOKS, HAYSTREAM, STREAM
from benchmarks.measures import Measure, Ratio
from benchmarks.rows.burst import MOCK_WORDS, QUICK_WORDS, SPEED, bursting
from benchmarks.rows.gateway.apart import gateway_cpu_seconds
from benchmarks.rows.row import Row

if TYPE_CHECKING:
    from benchmarks.contestants.lane import Lane
    from benchmarks.measures import Sample
    from benchmarks.rows.row import Ground, Trial

GATEWAY_CPU = Measure("of it the gateway's", "us", 1)


def bursting_apart(streams: int) -> Trial:
    """Return a trial of a burst that tells the gateway's processor time from the service's."""
    burst = bursting("mock", streams, MOCK_WORDS)

    async def trial(lane: Lane, ground: Ground) -> Sample:
        before = gateway_cpu_seconds(lane)
        sample = await burst(lane, ground)
        seconds = gateway_cpu_seconds(lane) - before
        return {**sample, GATEWAY_CPU: 1e6 * seconds / ground.size(MOCK_WORDS, QUICK_WORDS)}

    return trial


def burst_row(streams: int) -> Row:
    """Return the row of so many streams."""
    return Row(
        name=f"gateway-burst-{streams}",
        title=f"Burst through the gateway, {streams} at once",
        about=(
            f"{MOCK_WORDS:,} chunks of MockChatGenerator in all, from the first question to the last byte of the last "
            "answer: as server-sent events over HTTP/1.1, and beside it from the same service over gRPC. Whoever falls "
            "behind gets fewer and larger events. The gateway is a process of its own, and may work while the service "
            "does."
        ),
        entrants=(HAYSTREAM, GATEWAY, HAYHOOKS, STREAM),
        trial=bursting_apart(streams),
        chart=SPEED,
        targets=(
            Ratio("at least 0.8 x gRPC direct", SPEED, "gateway", "haystream", at_least=0.8),
            Ratio("at least 1.5 x hayhooks", SPEED, "gateway", "hayhooks", at_least=1.5),
            Ratio("not slower than Haystack's stream()", SPEED, "gateway", "stream", at_least=1),
        ),
        profiled="gateway",
        floor="gRPC direct: all that the gateway sends has come to it that way.",
    )


GATEWAY_BURST_ROWS = (burst_row(1), burst_row(20))
