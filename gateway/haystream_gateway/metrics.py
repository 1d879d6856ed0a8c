"""What the gateway counts, in Prometheus' form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

if TYPE_CHECKING:
    from collections.abc import Sized

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Metrics:
    """Counters of one gateway. What they are labelled with are words of the contract, of which there are few."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._frames = Counter(
            "haystream_gateway_frames", "Frames sent to readers, heartbeats included.", registry=self._registry
        )
        self._bytes = Counter("haystream_gateway_bytes", "Bytes of frames sent to readers.", registry=self._registry)
        self._endings = Counter(
            "haystream_gateway_endings",
            "Streams that ended or were refused, by finish reason, by their error's reason, or LEFT by their reader.",
            ["ending"],
            registry=self._registry,
        )
        self._requests = Counter(
            "haystream_gateway_requests",
            "HTTP requests that were answered, by method, by the route that they took and by status.",
            ["method", "route", "status"],
            registry=self._registry,
        )

    def watch(self, streams: Sized) -> None:
        """Show how many streams are open."""
        gauge = Gauge("haystream_gateway_open_streams", "Streams that are open now.", registry=self._registry)
        gauge.set_function(lambda: len(streams))

    def sent(self, frame: bytes) -> None:
        """Count a frame."""
        self._frames.inc()
        self._bytes.inc(len(frame))

    def ended(self, ending: str) -> None:
        """Count the end of a stream."""
        self._endings.labels(ending).inc()

    def answered(self, method: str, route: str, status: int) -> None:
        """Count an answer."""
        self._requests.labels(method, route, str(status)).inc()

    def exposition(self) -> bytes:
        """Return all of it as text."""
        return generate_latest(self._registry)
