"""Runs the service without its metrics, to see what they cost: no chunk, run or RPC is counted or timed.

What remains of them is a call of an empty function for each chunk. Whatever else the service does it does here, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio

import haystream_service.run.queue
import haystream_service.server
from haystream_service.__main__ import main
from haystream_service.run.pace import Pace
from haystream_service.telemetry.collected import Metrics, metrics_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from haystream_service.errors import Refusal
    from haystream_service.run.events import Event
    from haystream_service.run.run import Run
    from haystream_service.telemetry.gauges import Holdings


class Unpaced(Pace):
    """Takes no note of chunks."""

    __slots__ = ()

    def add(self, event: Event) -> None:
        """Do nothing."""


class Uncounted:
    """Counts no run, reader or refusal."""

    def run_ended(self, run: Run) -> None:
        """Do nothing."""

    def refused(self, refusal: Refusal) -> None:
        """Do nothing."""

    def slow_reader(self) -> None:
        """Do nothing."""


class Unwatched(grpc.aio.ServerInterceptor):
    """Leaves every RPC as it is."""

    def __init__(self, *_: object) -> None:
        pass

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler."""
        return await continuation(handler_call_details)


def without_counters(holdings: Holdings, services: Iterable[str]) -> Metrics:
    """Return metrics that stay as they are."""
    metrics = metrics_of(holdings, services)
    return Metrics(metrics.registry, Uncounted(), metrics.rpcs)  # type: ignore[arg-type]  # all that is asked of them


if __name__ == "__main__":
    haystream_service.run.queue.Pace = Unpaced  # type: ignore[attr-defined]  # before it is composed, as these
    haystream_service.server.metrics_of = without_counters  # type: ignore[attr-defined]
    haystream_service.server.WatchedRpcs = Unwatched  # type: ignore[attr-defined,assignment]
    main()
