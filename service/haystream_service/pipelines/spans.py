"""Haystack's own spans under those of a run, without what users write.

Imported only where traces are wanted: OpenTelemetry is an extra.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from haystack.tracing.tracer import Span, Tracer, enable_tracing
from haystack.tracing.tracer import tracer as tracer_of_haystack
from opentelemetry import trace
from opentelemetry.trace import StatusCode

if TYPE_CHECKING:
    from collections.abc import Generator

# Not all that Haystack says without being asked for content is free of it: a pipeline's span has its whole input.
TAGS = frozenset(
    {
        "haystack.agent.hook.name",
        "haystack.agent.hook.point",
        "haystack.agent.max_steps",
        "haystack.agent.steps_taken",
        "haystack.component.fully_qualified_type",
        "haystack.component.name",
        "haystack.component.type",
        "haystack.component.visits",
        "haystack.pipeline.execution_mode",
        "haystack.pipeline.max_runs_per_component",
        "haystack.tool.error",
        "haystack.tool.name",
    }
)


class PipelineSpan(Span):
    """A span of Haystack's. It takes the tags that are known to be names and numbers."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def set_tag(self, key: str, value: Any) -> None:
        """Set a tag that is one of those."""
        if key in TAGS and isinstance(value, bool | int | float | str):
            self._span.set_attribute(key, value)

    def set_content_tag(self, key: str, value: Any) -> None:
        """Set nothing, whatever Haystack's own setting for it says."""

    def raw_span(self) -> trace.Span:
        """Return OpenTelemetry's span."""
        return self._span


class PipelineTracer(Tracer):
    """Makes spans for what runs under a run's span, and for nothing else: loading and other services have none."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def trace(
        self, operation_name: str, tags: dict[str, Any] | None = None, parent_span: Span | None = None
    ) -> Generator[Span]:
        """Make a span within the one that Haystack names, or within that of the task or thread."""
        parent = parent_span.raw_span() if isinstance(parent_span, PipelineSpan) else trace.get_current_span()
        if not parent.is_recording():
            yield PipelineSpan(trace.INVALID_SPAN)
            return
        with self._tracer.start_as_current_span(
            operation_name,
            context=trace.set_span_in_context(parent),
            record_exception=False,  # its words quote what users wrote
            set_status_on_exception=False,
        ) as raw:
            span = PipelineSpan(raw)
            span.set_tags(tags or {})
            try:
                yield span
            except Exception as error:
                raw.set_attribute("error.type", type(error).__qualname__)
                raw.set_status(StatusCode.ERROR)
                raise

    def current_span(self) -> Span | None:
        """Return the span that what runs here is in."""
        span = trace.get_current_span()
        return PipelineSpan(span) if span.is_recording() else None


@contextmanager
def traced_pipelines(tracer: trace.Tracer) -> Generator[None]:
    """Have Haystack tell of its pipelines while the block lasts. It has one place for that in the process."""
    before = tracer_of_haystack.actual_tracer
    enable_tracing(PipelineTracer(tracer))
    try:
        yield
    finally:
        enable_tracing(before)
