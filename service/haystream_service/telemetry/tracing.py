"""Spans of OpenTelemetry: one per RPC of ChatService, one per run, and Haystack's own under that.

Imported only where traces are wanted: OpenTelemetry is an extra.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

import grpc
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from haystream.v1 import chat_pb2
from haystream_service.pipelines.spans import traced_pipelines
from haystream_service.telemetry.words import word_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

    from opentelemetry.trace import Span, TracerProvider

    from haystream_service.rpc import Context
    from haystream_service.run.run import Run
    from haystream_service.run.store import RunRecord
    from haystream_service.telemetry.rpcs import Rpc

SERVICE = chat_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name
RUN_ID, PIPELINE, ENDING = "haystream.run_id", "haystream.pipeline", "haystream.ending"
PROPAGATED = ("traceparent", "tracestate")

# For a server the others are answers, not failures: the conventions of OpenTelemetry list these.
FAILURES = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
GOOD_ENDINGS = frozenset({"STOP", "LENGTH", "TOOL_CALLS", "CONTENT_FILTER", "RUN_CANCELLED", "DISCONNECTED"})


class Traces:
    """Makes the spans of one service. What they carry: names, ids, numbers and the contract's words."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("haystream", version("haystream"))
        self._propagator = TraceContextTextMapPropagator()

    def of_pipelines(self) -> AbstractContextManager[None]:
        """Have Haystack make its own spans under those of the runs while the block lasts."""
        return traced_pipelines(self._tracer)

    def begun(self, rpc: Rpc, context: Context) -> Callable[[grpc.StatusCode], None]:
        """Begin the span of an RPC, under the caller's own; health checks and reflection have none."""
        if rpc.service != SERVICE:
            return _nothing
        sent = {name: value for name, value in context.invocation_metadata() or () if name in PROPAGATED}
        method = f"{rpc.service}/{rpc.method}"
        span = self._tracer.start_span(
            method,
            context=self._propagator.extract(sent, contexts.Context()),
            kind=SpanKind.SERVER,
            attributes={"rpc.system.name": "grpc", "rpc.method": method},
        )
        token = contexts.attach(trace.set_span_in_context(span))

        def ended(code: grpc.StatusCode) -> None:
            span.set_attribute("rpc.response.status_code", code.name)
            if code in FAILURES:
                span.set_attribute("error.type", code.name)
                span.set_status(StatusCode.ERROR)
            span.end()
            contexts.detach(token)

        return ended

    @contextmanager
    def run(self, record: RunRecord) -> Generator[RunSpan]:
        """Have what is started within the block under a span of the run: it may go on longer than the RPC's."""
        span = self._tracer.start_span("haystream.run", attributes=_names(record))
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            yield RunSpan(span)

    def name_run(self, record: RunRecord) -> None:
        """Say on the RPC's span which run it reads."""
        trace.get_current_span().set_attributes(_names(record))

    def name_ending(self, word: str) -> None:
        """Say on the RPC's span how that ended for it."""
        trace.get_current_span().set_attribute(ENDING, word)


class RunSpan:
    """The span of a run."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def end(self, run: Run) -> None:
        """End it, with what came of the run."""
        word = word_of(run.ending)
        span = self._span
        span.set_attribute(ENDING, word)
        span.set_attribute("haystream.chunks", run.pace.chunks)
        if run.pace.first_chunk_seconds is not None:
            span.set_attribute("haystream.first_chunk_seconds", run.pace.first_chunk_seconds)
        if run.usage:
            span.set_attribute("gen_ai.usage.input_tokens", sum(usage.prompt_tokens for usage in run.usage))
            span.set_attribute("gen_ai.usage.output_tokens", sum(usage.completion_tokens for usage in run.usage))
        if word not in GOOD_ENDINGS:
            span.set_attribute("error.type", word)
            span.set_status(StatusCode.ERROR)
        span.end()


def _names(record: RunRecord) -> dict[str, str]:
    return {RUN_ID: record.id, PIPELINE: record.pipeline}


def _nothing(_code: grpc.StatusCode) -> None:
    """Take no note of an RPC that has no span."""
