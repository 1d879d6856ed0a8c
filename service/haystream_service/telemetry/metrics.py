"""What is counted of runs, readers and refusals. Labels are few: the folder's pipelines, and the contract's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Histogram

from haystream_service.status import status_of_refusal
from haystream_service.telemetry.paces import Paces
from haystream_service.telemetry.words import every_ending, every_refusal, word_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import CollectorRegistry

    from haystream_service.errors import Refusal
    from haystream_service.run.run import Run

DURATION_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
TOKEN_KINDS = ("prompt", "completion")


class RunMetrics:
    """The counters of one service. `pipelines` returns the names that there are, which all begin with zero."""

    def __init__(
        self, registry: CollectorRegistry, runs: Iterable[Run], pipelines: Callable[[], Iterable[str]]
    ) -> None:
        self._pipelines = pipelines
        self._endings = every_ending()
        self._paces = Paces(runs, self.begin_with_zero)
        registry.register(self._paces)  # before the others, which it gives their zeros
        self._ended = Counter(
            "haystream_runs", "Runs that ended, by pipeline and ending.", ["pipeline", "ending"], registry=registry
        )
        self._duration = Histogram(
            "haystream_run_duration_seconds",
            "From a run's beginning to its end.",
            ["pipeline"],
            buckets=DURATION_BOUNDS,
            registry=registry,
        )
        self._tokens = Counter(
            "haystream_tokens",
            "Tokens of runs that ended, as their models' providers told them.",
            ["pipeline", "kind"],
            registry=registry,
        )
        self._refusals = Counter(
            "haystream_refusals", "Requests that were refused, by reason.", ["reason"], registry=registry
        )
        for reason in every_refusal():
            self._refusals.labels(reason)
        self._slow_readers = Counter(
            "haystream_slow_readers",
            "Readers that were let go since they took nothing for too long.",
            registry=registry,
        )
        self._defects = Counter(
            "haystream_defects",
            "Defects of the service's own that a call met; those in a run are its ending.",
            registry=registry,
        )

    def begin_with_zero(self) -> list[str]:
        """Show what has not happened yet: the first time would not count as an increase. Return the pipelines."""
        names = list(self._pipelines())
        for name in names:
            self._duration.labels(name)
            for kind in TOKEN_KINDS:
                self._tokens.labels(name, kind)
            for ending in self._endings:
                self._ended.labels(name, ending)
        return names

    def run_ended(self, run: Run) -> None:
        """Count a run."""
        pipeline = run.record.pipeline
        self._ended.labels(pipeline, word_of(run.ending)).inc()
        self._duration.labels(pipeline).observe(run.pace.seconds)
        self._tokens.labels(pipeline, "prompt").inc(sum(usage.prompt_tokens for usage in run.usage))
        self._tokens.labels(pipeline, "completion").inc(sum(usage.completion_tokens for usage in run.usage))
        self._paces.run_ended(run)

    def refused(self, refusal: Refusal) -> None:
        """Count a request that was refused."""
        self._refusals.labels(status_of_refusal(refusal).reason).inc()

    def slow_reader(self) -> None:
        """Count a reader that was let go."""
        self._slow_readers.inc()

    def defect(self) -> None:
        """Count a defect."""
        self._defects.inc()
