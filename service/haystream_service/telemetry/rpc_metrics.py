"""What is counted of RPCs, by the names and labels of go-grpc-middleware, so that dashboards made for it fit."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import grpc
from prometheus_client import Counter, Histogram

from haystream_service.telemetry.rpcs import rpcs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import CollectorRegistry

    from haystream_service.rpc import Context
    from haystream_service.telemetry.rpcs import Rpc

LABELS = ("grpc_type", "grpc_service", "grpc_method")
# A stream is handled for as long as its run takes.
HANDLING_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)


class RpcMetrics:
    """The counters of one server. All methods of the services begin with zero."""

    def __init__(self, registry: CollectorRegistry, services: Iterable[str]) -> None:
        self._started = Counter("grpc_server_started", "RPCs that began.", LABELS, registry=registry)
        self._handled = Counter(
            "grpc_server_handled", "RPCs that ended, by code.", [*LABELS, "grpc_code"], registry=registry
        )
        self._handling = Histogram(
            "grpc_server_handling_seconds",
            "From an RPC's beginning to its end.",
            LABELS,
            buckets=HANDLING_BOUNDS,
            registry=registry,
        )
        for rpc in rpcs_of(services):
            self._begin_with_zero(rpc)

    def begun(self, rpc: Rpc, context: Context) -> Callable[[grpc.StatusCode], None]:
        """Count an RPC, and its end."""
        labels = (rpc.type, rpc.service, rpc.method)
        began = monotonic()
        self._started.labels(*labels).inc()

        def ended(code: grpc.StatusCode) -> None:
            self._handled.labels(*labels, code_word(code)).inc()
            self._handling.labels(*labels).observe(monotonic() - began)

        return ended

    def _begin_with_zero(self, rpc: Rpc) -> None:
        labels = (rpc.type, rpc.service, rpc.method)
        self._started.labels(*labels)
        self._handling.labels(*labels)
        for code in grpc.StatusCode:
            self._handled.labels(*labels, code_word(code))


def code_word(code: grpc.StatusCode) -> str:
    """Return Go's word for a code, which is what such metrics are labelled with everywhere."""
    if code is grpc.StatusCode.OK:
        return "OK"
    if code is grpc.StatusCode.CANCELLED:
        return "Canceled"
    return code.name.title().replace("_", "")
