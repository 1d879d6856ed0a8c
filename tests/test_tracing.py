"""Traces: a span per RPC under its caller's, a run's under that, Haystack's own under the run's. No word of users'."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from haystack.tracing.tracer import is_tracing_enabled
from haystack.tracing.tracer import tracer as haystack_tracer
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_service.telemetry.export import CLOSE_SECONDS, TracesUnavailable, wants_traces
from haystream_service.telemetry.tracing import Traces
from tests.calls import all_events
from tests.conftest import SHIPPED, served
from tests.processes import address_of, started
from tests.receiver import receiving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

    from tests.conftest import Served
    from tests.fakes import Stage

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = ("traceparent", f"00-{TRACE}-{PARENT}-01")
CHAT = "haystream.v1.ChatService/Chat"


class Spans(SpanProcessor):
    """The spans that have ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.provider.add_span_processor(self)
        self.rpc_ended = asyncio.Event()

    def on_end(self, span: ReadableSpan) -> None:
        """Tell that an RPC is over."""
        if span.kind is SpanKind.SERVER:
            self.rpc_ended.set()

    def __getitem__(self, name: str) -> ReadableSpan:
        """Return the only span of a name."""
        [span] = [span for span in self.exporter.get_finished_spans() if span.name == name]
        return span

    @property
    def names(self) -> list[str]:
        """The names, in order."""
        return [span.name for span in self.exporter.get_finished_spans()]

    @property
    def text(self) -> str:
        """All that would be sent."""
        return "\n".join(span.to_json() for span in self.exporter.get_finished_spans())


@asynccontextmanager
async def traced() -> AsyncGenerator[tuple[Served, Spans]]:
    """Serve the fakes with traces."""
    spans = Spans()
    async with served(default_pipeline="fake", traces=Traces(spans.provider)) as running:
        yield running, spans
    spans.provider.shutdown()


def is_child(child: ReadableSpan, parent: ReadableSpan) -> bool:
    """Tell whether a span is right under another."""
    return child.parent is not None and parent.context is not None and child.parent.span_id == parent.context.span_id


def attributes(span: ReadableSpan) -> dict[str, object]:
    """Return what a span carries."""
    return dict(span.attributes or {})


@pytest.mark.parametrize("pipeline", ["fake", "threaded", "agent", "agent_threaded", "finder"])
async def test_a_call_is_one_trace_from_its_caller_to_each_component(stage: Stage, pipeline: str) -> None:
    """Also where a component runs in a thread: the caller's trace id is on all of them, and each has its parent."""
    stage.chunks = 2
    stage.proceed.set()
    async with traced() as (running, spans):
        call = running.stub.Chat(chat_pb2.ChatRequest(pipeline=pipeline, query="q"), metadata=[TRACEPARENT])
        await all_events(call)
        rpc, run, whole = spans[CHAT], spans["haystream.run"], spans["haystack.pipeline.run"]
        finished = spans.exporter.get_finished_spans()
    assert {f"{span.context.trace_id:032x}" for span in finished if span.context} == {TRACE}
    assert rpc.parent is not None
    assert f"{rpc.parent.span_id:016x}" == PARENT
    assert rpc.kind is SpanKind.SERVER
    assert is_child(run, rpc)
    assert is_child(whole, run)
    components = [span for span in finished if span.name == "haystack.component.run" and is_child(span, whole)]
    assert components
    names = {attributes(span)["haystack.component.name"] for span in components}
    assert names == (
        {"finder", "prompt", "llm"} if pipeline == "finder" else {"agent"} if "agent" in pipeline else {"llm"}
    )
    assert all(span.parent is not None for span in finished)


async def test_the_spans_say_which_run_it_was_and_how_it_ended(stage: Stage) -> None:
    """On the RPC's span stands what a caller sees, on the run's what it has come to."""
    stage.chunks = 3
    stage.meta = {"finish_reason": "length", "model": "m", "usage": {"prompt_tokens": 5, "completion_tokens": 7}}
    stage.proceed.set()
    async with traced() as (running, spans):
        await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q", run_id="mine")))
        rpc, run = attributes(spans[CHAT]), attributes(spans["haystream.run"])
    names = {"haystream.run_id": "mine", "haystream.pipeline": "fake", "haystream.ending": "LENGTH"}
    assert rpc == {"rpc.system.name": "grpc", "rpc.method": CHAT, "rpc.response.status_code": "OK", **names}
    first = run.pop("haystream.first_chunk_seconds")
    assert isinstance(first, float)
    assert 0 < first < 30
    assert run == {
        **names,
        "haystream.chunks": 3,
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 7,
    }


async def test_a_failure_is_marked_on_each_span_without_its_words(stage: Stage) -> None:
    """The type of the error is there; what it says may quote the question."""
    stage.error = ValueError("the password is swordfish")
    stage.proceed.set()
    async with traced() as (running, spans):
        with pytest.raises(grpc.aio.AioRpcError):
            await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q")))
        marked = {span.name: attributes(span).get("error.type") for span in spans.exporter.get_finished_spans()}
        assert all(span.status.status_code is StatusCode.ERROR for span in spans.exporter.get_finished_spans())
        assert attributes(spans[CHAT])["haystream.ending"] == "COMPONENT_FAILED"
        assert "swordfish" not in spans.text
        assert not any(span.events for span in spans.exporter.get_finished_spans())
    assert marked == {
        CHAT: "INTERNAL",
        "haystream.run": "COMPONENT_FAILED",
        "haystack.pipeline.run": "PipelineRuntimeError",
        "haystack.component.run": "PipelineRuntimeError",
    }


async def test_a_caller_who_leaves_is_no_error(stage: Stage) -> None:
    """The RPC is CANCELLED, the run DISCONNECTED, and neither is marked."""
    stage.chunks = 1
    async with traced() as (running, spans):
        call = running.stub.Chat(chat_pb2.ChatRequest(query="q"))
        await stage.waiting.wait()
        call.cancel()
        await running.runs.until_idle()
        await stage.cancelled.wait()
    rpc, run = spans[CHAT], spans["haystream.run"]
    assert attributes(rpc)["rpc.response.status_code"] == "CANCELLED"
    assert attributes(run)["haystream.ending"] == "DISCONNECTED"
    assert {rpc.status.status_code, run.status.status_code} == {StatusCode.UNSET}


async def test_a_run_that_outlives_its_caller_stays_in_the_trace(stage: Stage) -> None:
    """Its span ends with it, under that of the RPC which began it; who comes back has a trace of their own."""
    stage.chunks = 1
    async with traced() as (running, spans):
        request = chat_pb2.ChatRequest(query="q", run_id="mine", on_disconnect=chat_pb2.ON_DISCONNECT_CONTINUE)
        call = running.stub.Chat(request, metadata=[TRACEPARENT])
        await stage.waiting.wait()
        [run] = running.runs
        call.cancel()
        await spans.rpc_ended.wait()
        assert not run.has_readers
        assert "haystream.run" not in spans.names
        stage.proceed.set()
        await running.runs.until_idle()
        await all_events(running.stub.Resume(chat_pb2.ResumeRequest(run_id="mine")))
    assert is_child(spans["haystream.run"], spans[CHAT])
    assert is_child(spans["haystack.pipeline.run"], spans["haystream.run"])
    resumed = spans["haystream.v1.ChatService/Resume"]
    assert resumed.parent is None
    assert attributes(resumed)["haystream.run_id"] == "mine"
    assert attributes(resumed)["haystream.ending"] == "STOP"


async def test_content_stays_out_even_where_haystack_is_told_to_trace_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the question nor the answer, though Haystack tags a pipeline's span with its whole input."""
    monkeypatch.setattr(haystack_tracer, "is_content_tracing_enabled", True)
    stage.chunks, stage.text = 1, "swordfish"
    stage.proceed.set()
    async with traced() as (running, spans):
        await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="hunter2")))
        await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="hunter2", pipeline="agent")))
        text = spans.text
    assert "haystack.component.name" in text
    assert "hunter2" not in text
    assert "swordfish" not in text
    assert "Oslo" not in text


async def test_health_checks_have_no_spans(stage: Stage) -> None:
    """They come every few seconds, and would bury the rest."""
    async with traced() as (running, spans):
        stub = health_pb2_grpc.HealthStub(running.channel)
        await stub.Check(health_pb2.HealthCheckRequest())
        await running.stub.ListPipelines(chat_pb2.ListPipelinesRequest())
    assert spans.names == ["haystream.v1.ChatService/ListPipelines"]


async def test_haystack_is_told_only_as_long_as_the_service_serves(stage: Stage) -> None:
    """It has one tracer for the process; runs of a service without traces, beside it, make no spans."""
    stage.proceed.set()
    async with traced() as (_, spans):
        assert is_tracing_enabled()
        async with served(default_pipeline="fake") as other:
            await all_events(other.stub.Chat(chat_pb2.ChatRequest(query="q")))
        assert spans.names == []
    assert not is_tracing_enabled()


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_the_fields_own_variables_turn_traces_on(environment: dict[str, str], wanted: bool) -> None:
    """Whoever runs other services with OpenTelemetry has nothing new to learn."""
    assert wants_traces(environment) is wanted


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
    ],
)
def test_what_is_not_built_in_is_refused_by_name(environment: dict[str, str], name: str) -> None:
    """Rather than nothing coming out, without a word."""
    with pytest.raises(TracesUnavailable, match=f"^{name}: "):
        wants_traces(environment)


async def test_a_receiver_that_never_answers_does_not_hold_up_the_exit(echo_alone: Path) -> None:
    """What cannot be sent within the bound is lost; the command exits 0 all the same."""
    async with receiving(answers=False) as receiver:
        settings = {"HAYSTREAM_PIPELINES": str(echo_alone), "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
        async with started("haystream_service", **settings) as process:
            async with grpc.aio.insecure_channel(await address_of(process)) as channel:
                await chat_pb2_grpc.ChatServiceStub(channel).ListPipelines(chat_pb2.ListPipelinesRequest())
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            _, log = await process.communicate()
            took = time.monotonic() - began
        assert process.returncode == 0
        assert receiver.asked.is_set()
    assert CLOSE_SECONDS < took < CLOSE_SECONDS + 3
    assert b"stopped" in log


async def test_a_receiver_that_is_not_there_does_not_hold_up_the_exit(echo_alone: Path) -> None:
    """As above, where nobody listens: attempts are not repeated for ever."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    settings = {"HAYSTREAM_PIPELINES": str(echo_alone), "OTEL_EXPORTER_OTLP_ENDPOINT": url}
    async with started("haystream_service", **settings) as process:
        async with grpc.aio.insecure_channel(await address_of(process)) as channel:
            await chat_pb2_grpc.ChatServiceStub(channel).ListPipelines(chat_pb2.ListPipelinesRequest())
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0
    assert time.monotonic() - began < CLOSE_SECONDS + 3


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER: 'zipkin' is not built in; use otlp, or none"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "PYTHONPATH": "without"},
            "OTEL_TRACES_EXPORTER: traces need OpenTelemetry; install haystream[otel], or say none",
        ),
    ],
)
async def test_traces_that_cannot_be_had_are_one_line_and_no_service(
    echo_alone: Path, tmp_path: Path, settings: dict[str, str], complaint: str
) -> None:
    """Whoever asks for them is not to find out later that there are none."""
    if "PYTHONPATH" in settings:  # as where the extra is not installed
        without = tmp_path / "without" / "opentelemetry"
        without.mkdir(parents=True)
        (without / "__init__.py").write_text("raise ImportError\n")
        settings = {**settings, "PYTHONPATH": f"{without.parent}:{os.environ.get('PYTHONPATH', '')}"}
    async with started("haystream_service", HAYSTREAM_PIPELINES=str(echo_alone), **settings) as process:
        _, log = await process.communicate()
    assert process.returncode == 1
    assert log.decode() == f"haystream-service: {complaint}\n"


@pytest.fixture
def echo_alone(tmp_path: Path) -> Path:
    """A folder with the shipped pipeline `echo` alone."""
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "echo.py").write_text((SHIPPED / "echo.py").read_text())
    return folder
