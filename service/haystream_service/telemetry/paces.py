"""The chunks of all runs, added up: those of runs that go on as well, as a scrape finds them."""

from __future__ import annotations

import copy
import threading
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING
from weakref import WeakSet

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from haystream_service.run.pace import GAP_BOUNDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric

    from haystream_service.run.pace import Pace
    from haystream_service.run.run import Run

FIRST_CHUNK_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Paces(Collector):
    """The chunks of all runs by pipeline: of those that ended in sum, of those that go on as a scrape finds them."""

    def __init__(self, runs: Iterable[Run], pipelines: Callable[[], Iterable[str]]) -> None:
        self._runs = runs
        self._pipelines = pipelines
        self._lock = threading.Lock()  # a scrape comes in a thread, and is to count each run once
        self._ended: dict[str, PaceSum] = {}
        self._counted: WeakSet[Run] = WeakSet()  # which ended, and may still be read

    def run_ended(self, run: Run) -> None:
        """Add a run to the sum."""
        with self._lock:
            self._ended.setdefault(run.record.pipeline, PaceSum()).add(run.pace)
            self._counted.add(run)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: so the registry does not collect at once."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Return what it has come to."""
        chunks = CounterMetricFamily("haystream_chunks", "Pieces that models have said.", labels=["pipeline"])
        sizes = CounterMetricFamily("haystream_chunk_bytes", "Bytes of those pieces, in UTF-8.", labels=["pipeline"])
        first = HistogramMetricFamily(
            "haystream_first_chunk_seconds", "From a run's beginning to its first chunk.", labels=["pipeline"]
        )
        gaps = HistogramMetricFamily(
            "haystream_chunk_gap_seconds",
            "Between a run's chunks as they come from the model, waits for a slow reader included.",
            labels=["pipeline"],
        )
        for pipeline, so_far in self._sums().items():
            chunks.add_metric([pipeline], so_far.chunks)
            sizes.add_metric([pipeline], so_far.chunk_bytes)
            first.add_metric([pipeline], cumulated(FIRST_CHUNK_BOUNDS, so_far.first_counts), so_far.first_seconds)
            gaps.add_metric([pipeline], cumulated(GAP_BOUNDS, so_far.gap_counts), so_far.gap_seconds)
        yield from (chunks, sizes, first, gaps)

    def _sums(self) -> dict[str, PaceSum]:
        with self._lock:
            sums = {name: PaceSum() for name in self._pipelines()}
            for name, ended in self._ended.items():
                sums[name] = ended.copy()
            for run in self._runs:
                if run not in self._counted:
                    sums.setdefault(run.record.pipeline, PaceSum()).add(run.pace)
        return sums


class PaceSum:
    """The measures of many runs, added up."""

    def __init__(self) -> None:
        self.chunks = 0
        self.chunk_bytes = 0
        self.first_counts = [0] * (len(FIRST_CHUNK_BOUNDS) + 1)
        self.first_seconds = 0.0
        self.gap_counts = [0] * (len(GAP_BOUNDS) + 1)
        self.gap_seconds = 0.0

    def add(self, pace: Pace) -> None:
        """Add those of a run."""
        first = pace.first_chunk_seconds
        if first is None:
            return
        self.first_counts[bisect_left(FIRST_CHUNK_BOUNDS, first)] += 1
        self.first_seconds += first
        counts = list(pace.gap_counts)
        for place, count in enumerate(counts):
            self.gap_counts[place] += count
        self.gap_seconds += pace.gap_seconds
        self.chunks += sum(counts) + 1
        self.chunk_bytes += pace.chunk_bytes

    def copy(self) -> PaceSum:
        """Return the same, to add more to it."""
        mine = copy.copy(self)
        mine.first_counts = list(self.first_counts)
        mine.gap_counts = list(self.gap_counts)
        return mine


def cumulated(bounds: Iterable[float], counts: Iterable[int]) -> list[tuple[str, float]]:
    """Return buckets as Prometheus has them, each with all that is smaller."""
    names = [*map(str, bounds), "+Inf"]
    return list(zip(names, map(float, accumulate(counts)), strict=True))
