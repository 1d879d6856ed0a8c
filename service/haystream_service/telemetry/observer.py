"""What the servicer tells of its runs and readers, and who hears it: the lines, the metrics, the traces."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from haystream_service.run.ending import ReaderTooSlow
from haystream_service.telemetry.report import own_name
from haystream_service.telemetry.words import word_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Generator

    from haystream_service.errors import Refusal
    from haystream_service.run.ending import Ending
    from haystream_service.run.run import Run
    from haystream_service.run.runs import OnEnded
    from haystream_service.run.store import EndedRun, RunRecord
    from haystream_service.telemetry.metrics import RunMetrics
    from haystream_service.telemetry.report import Report
    from haystream_service.telemetry.tracing import Traces


class Observer:
    """Hears of everything once. `pipelines` returns the names that there are: none but those are shown."""

    def __init__(
        self, report: Report, metrics: RunMetrics, traces: Traces | None, pipelines: Callable[[], Container[str]]
    ) -> None:
        self._report = report
        self._metrics = metrics
        self._traces = traces
        self._pipelines = pipelines

    @contextmanager
    def starting(self, record: RunRecord, request_id: str, api_key: str) -> Generator[OnEnded]:
        """Have a run started within the block, and what is returned called once it has ended."""
        with self._traces.run(record) if self._traces is not None else nullcontext() as span:

            def on_ended(run: Run, error: BaseException | None) -> None:
                self._metrics.run_ended(run)
                self._report.run_ended(run, error, request_id=request_id, api_key=api_key)
                if span is not None:
                    span.end(run)

            yield on_ended

    def reads(self, run: Run | EndedRun) -> None:
        """Hear which run the call that is being answered reads."""
        if self._traces is not None:
            self._traces.name_run(run.record)

    def has_read(self, ending: Ending) -> None:
        """Hear how a reader's call has ended: as its run, or in its own way."""
        if isinstance(ending, ReaderTooSlow):
            self._metrics.slow_reader()
        if self._traces is not None:
            self._traces.name_ending(word_of(ending))

    def refused(self, refusal: Refusal, request_id: str, *, principal: str = "", pipeline: str = "") -> None:
        """Hear that a request was refused, and by which names it went as far as they are known."""
        self._metrics.refused(refusal)
        pipeline = own_name(pipeline, self._pipelines())
        self._report.refused(refusal, request_id=request_id, principal=principal, pipeline=pipeline)

    def defect(self, error: BaseException, request_id: str, run_id: str = "") -> None:
        """Hear of a defect of the service's own."""
        self._metrics.defect()
        self._report.defect(error, request_id=request_id, run_id=run_id)
