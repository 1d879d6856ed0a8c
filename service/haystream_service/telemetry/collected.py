"""All metrics of one service in one registry of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

from haystream_service.telemetry.gauges import Gauges
from haystream_service.telemetry.metrics import RunMetrics
from haystream_service.telemetry.rpc_metrics import RpcMetrics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from haystream_service.telemetry.gauges import Holdings


@dataclass(frozen=True, slots=True)
class Metrics:
    """What is counted, and the registry that shows it together with what is looked up at a scrape."""

    registry: CollectorRegistry
    runs: RunMetrics
    rpcs: RpcMetrics


def metrics_of(holdings: Holdings, services: Iterable[str]) -> Metrics:
    """Return the metrics of a service that answers for some services of gRPC, and of the process that it runs in."""
    registry = CollectorRegistry()
    rpcs = RpcMetrics(registry, services)
    runs = RunMetrics(registry, holdings.runs, lambda: list(holdings.registry.slots))
    registry.register(Gauges(holdings))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return Metrics(registry, runs, rpcs)
