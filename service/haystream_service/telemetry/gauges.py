"""What the service holds at the moment of a scrape. Nothing is kept up to date in between."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric

    from haystream_service.pipelines.registry import PipelineRegistry
    from haystream_service.run.runs import Runs
    from haystream_service.run.store import MemoryStore
    from haystream_service.run.threads import ComponentThreads

    Labels = tuple[str, ...]
    Values = Iterable[tuple[Labels, float]]


def no_certificate() -> float | None:
    """Return nothing: the service has no certificate that could expire."""
    return None


@dataclass(frozen=True, slots=True)
class Holdings:
    """Where to look. What is called expiry returns the second since 1970 in which a certificate expires."""

    runs: Runs
    store: MemoryStore
    threads: ComponentThreads
    registry: PipelineRegistry
    max_runs: int
    max_sync_runs: int
    certificate_expiry: Callable[[], float | None] = no_certificate
    client_ca_expiry: Callable[[], float | None] = no_certificate


class Gauges(Collector):
    """Looks when it is asked, in the thread that asks: at numbers, and at copies of what changes meanwhile."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._build = (version("haystream"), version("haystack-ai"), platform.python_version())

    def describe(self) -> Iterable[Metric]:
        """Return nothing: so the registry does not collect at once."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Return everything."""
        yield _gauge("haystream_build_info", "What runs here.", [(self._build, 1)], ["version", "haystack", "python"])
        yield from self._of_runs()
        yield from self._of_threads()
        yield from self._of_pipelines()
        expiry = self._holdings.certificate_expiry()
        if expiry is not None:
            name = "haystream_tls_certificate_expiry_timestamp_seconds"
            yield _gauge(name, "When the service's certificate expires.", expiry)
        expiry = self._holdings.client_ca_expiry()
        if expiry is not None:
            name = "haystream_tls_client_ca_expiry_timestamp_seconds"
            yield _gauge(name, "When the last of the authorities of callers' certificates expires.", expiry)

    def _of_runs(self) -> Iterator[Metric]:
        holdings, runs = self._holdings, list(self._holdings.runs)
        queues = [run.queue for run in runs]
        yield _gauge("haystream_runs_active", "Runs at work, or still being read.", len(runs))
        yield _gauge("haystream_runs_limit", "Runs that there may be at once.", holdings.max_runs)
        unread = sum(not run.has_readers for run in runs)
        yield _gauge("haystream_runs_unread", "Runs that nobody reads just now.", unread)
        yield _gauge("haystream_readers", "Calls that read a run.", holdings.runs.reader_count)
        yield _gauge(
            "haystream_queue_bytes",
            "Memory of what models have said and nobody has read yet.",
            holdings.runs.queues.size_bytes,
        )
        blocked: list[tuple[Labels, float]] = [
            (("async",), sum(queue.waiting_callbacks for queue in queues)),
            (("thread",), sum(queue.blocked_threads for queue in queues)),
        ]
        yield _gauge("haystream_blocked_callbacks", "Models that wait for their reader, by kind.", blocked, ["kind"])
        replay = holdings.store.held.size_bytes
        yield _gauge("haystream_replay_bytes", "Memory of what was read and is kept for readers who come back.", replay)

    def _of_threads(self) -> Iterator[Metric]:
        threads = self._holdings.threads
        yield _gauge("haystream_components_at_work", "Components at work in a thread.", threads.at_work)
        yield _gauge("haystream_components_waiting", "Components that wait for a thread.", threads.waiting)
        limit = self._holdings.max_sync_runs
        yield _gauge("haystream_components_limit", "Components that may be at work in a thread.", limit)
        text = "Threads that go on although their run was stopped."
        yield _gauge("haystream_orphaned_threads", text, threads.orphans)

    def _of_pipelines(self) -> Iterator[Metric]:
        slots = list(self._holdings.registry.slots.values())
        ready = sum(slot.loaded is not None for slot in slots)
        failed = sum(bool(slot.error) for slot in slots)
        yield _gauge("haystream_pipelines_ready", "Pipelines that are served.", ready)
        yield _gauge("haystream_pipelines_failed", "Pipelines whose file, as it is now, cannot be loaded.", failed)


def _gauge(name: str, text: str, value: float | Values, labels: Iterable[str] = ()) -> Metric:
    family = GaugeMetricFamily(name, text, labels=list(labels))
    for names, number in [((), value)] if isinstance(value, float | int) else value:
        family.add_metric(names, number)
    return family
