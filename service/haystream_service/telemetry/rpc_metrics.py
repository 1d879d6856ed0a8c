"""What is counted of RPCs, by the names and labels of go-grpc-middleware, so that dashboards made for it fit."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

import grpc
from prometheus_client import Counter, Histogram

from haystream_service.telemetry.rpcs import rpcs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client import CollectorRegistry

    from haystream_service.rpc import Context
    from haystream_service.telemetry.rpcs import Rpc

LABELS = ("grpc_type", "grpc_service", "grpc_method")
# A stream is handled for as long as its run takes.
HANDLING_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)


@dataclass(frozen=True, slots=True)
class _OfRpc:
    """The counters of one method: looking them up by their labels takes longer than counting."""

    started: Counter
    handled: Mapping[grpc.StatusCode, Counter]
    handling: Histogram


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
        self._rpcs = {rpc: self._of(rpc) for rpc in rpcs_of(services)}

    def begun(self, rpc: Rpc, context: Context) -> Callable[[grpc.StatusCode], None]:
        """Count an RPC, and its end."""
        counters = self._rpcs[rpc]
        began = monotonic()
        counters.started.inc()

        def ended(code: grpc.StatusCode) -> None:
            counters.handled[code].inc()
            counters.handling.observe(monotonic() - began)

        return ended

    def _of(self, rpc: Rpc) -> _OfRpc:
        labels = (rpc.type, rpc.service, rpc.method)
        return _OfRpc(
            self._started.labels(*labels),
            {code: self._handled.labels(*labels, code_word(code)) for code in grpc.StatusCode},
            self._handling.labels(*labels),
        )


def code_word(code: grpc.StatusCode) -> str:
    """Return Go's word for a code, which is what such metrics are labelled with everywhere."""
    if code is grpc.StatusCode.OK:
        return "OK"
    if code is grpc.StatusCode.CANCELLED:
        return "Canceled"
    return code.name.title().replace("_", "")
