"""What every address works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

from fastapi import Depends, Request

from haystream_gateway.event_stream import EventStream

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from haystream_gateway.event_stream import Dialect
    from haystream_gateway.metrics import Metrics
    from haystream_gateway.settings import Settings
    from haystream_gateway.strangers import Strangers
    from haystream_gateway.streams import RunStream, Streams
    from haystream_gateway.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Edge:
    """A gateway at work."""

    settings: Settings
    upstream: Upstream
    streams: Streams
    metrics: Metrics
    log: FilteringBoundLogger
    strangers: Strangers | None = None

    def response(self, stream: RunStream, dialect: Dialect) -> EventStream:
        """Return a stream as a response, which closes it."""
        return EventStream(stream, dialect, self.metrics.sent, self.log)


def edge_of(request: Request) -> Edge:
    """Return the gateway that a request has come to."""
    edge: Edge = request.app.state.edge
    return edge


Here: TypeAlias = Annotated[Edge, Depends(edge_of)]


async def check_strangers(here: Here) -> None:
    """Raise where the service would take a call from whoever reaches the gateway, and that is not meant."""
    if here.strangers is not None:
        await here.strangers.check()
