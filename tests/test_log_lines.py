"""The lines about runs and refusals: one each, with all that an operator asks for, and nothing that users wrote."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_service.run.events import Documents, Reasoning, Started, Text, ToolCall
from haystream_service.run.pace import Pace
from haystream_service.stories import story_of
from haystream_service.telemetry.words import every_ending, printable
from tests.calls import all_events
from tests.conftest import served
from tests.processes import address_of, started
from tests.receiver import receiving

if TYPE_CHECKING:
    from pathlib import Path

    from structlog.typing import EventDict

    from tests.conftest import Served
    from tests.fakes import Stage

CHAT = "haystream.v1.ChatService/Chat"


def line_of(lines: list[EventDict], event: str) -> dict[str, Any]:
    """Return the only line of an event."""
    [line] = [line for line in lines if line["event"] == event]
    return dict(line)


async def test_a_run_ends_with_one_line_that_says_all(lines: list[EventDict], stage: Stage) -> None:
    """Who, what, how it ended, how long it took, and how much it was."""
    stage.chunks, stage.text = 3, "häh "
    stage.meta = {"finish_reason": "length", "model": "m", "usage": {"prompt_tokens": 5, "completion_tokens": 7}}
    stage.proceed.set()
    async with served(default_pipeline="fake") as running:
        request = chat_pb2.ChatRequest(query="q", run_id="mine")
        await all_events(running.stub.Chat(request, metadata=[("x-request-id", "req-1")]))
    line = line_of(lines, "run ended")
    first, seconds = line.pop("first_chunk_seconds"), line.pop("seconds")
    assert 0 < first <= seconds < 30
    assert line == {
        "event": "run ended",
        "log_level": "info",
        "run_id": "mine",
        "request_id": "req-1",
        "principal": "anyone",
        "pipeline": "fake",
        "ending": "LENGTH",
        "chunks": 3,
        "bytes": 15,
        "prompt_tokens": 5,
        "completion_tokens": 7,
    }


async def test_a_run_that_said_nothing_has_no_first_chunk(lines: list[EventDict], stage: Stage) -> None:
    """Nor a number for it."""
    async with served(default_pipeline="fake") as running:
        call = running.stub.Chat(chat_pb2.ChatRequest(query="q", run_id="mine"))
        await stage.waiting.wait()
        await running.stub.Cancel(chat_pb2.CancelRequest(run_id="mine"))
        with pytest.raises(grpc.aio.AioRpcError):
            await all_events(call)
    line = line_of(lines, "run ended")
    assert (line["ending"], line["chunks"], line["first_chunk_seconds"]) == ("RUN_CANCELLED", 0, None)


async def test_a_failure_is_told_with_its_place_and_without_its_words(lines: list[EventDict], stage: Stage) -> None:
    """The types of the errors and the lines of code: what they say may quote what users wrote."""
    stage.error = ValueError("swordfish")
    stage.proceed.set()
    async with served(default_pipeline="fake") as running:
        with pytest.raises(grpc.aio.AioRpcError):
            await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q")))
    line = line_of(lines, "run failed")
    assert (line["ending"], line["log_level"]) == ("COMPONENT_FAILED", "error")
    assert line["exception"].endswith("haystack.core.errors.PipelineRuntimeError")
    assert "\nValueError\n" in line["exception"]
    assert "tests/fakes.py" in line["exception"]
    assert "swordfish" not in repr(lines)


async def test_what_is_refused_where_probes_ask_is_told_with_who_has_asked(lines: list[EventDict]) -> None:
    """Nobody there has a name."""
    async with (
        served(health_listen="127.0.0.1:0", warm=False) as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.service.health_port}") as probes,
    ):
        with pytest.raises(grpc.aio.AioRpcError):
            await health_pb2_grpc.HealthStub(probes).Check(health_pb2.HealthCheckRequest(service="x" * 5000))
    line = line_of(lines, "refused")
    assert (line["reason"], line["peer"], line["method"]) == ("INVALID_REQUEST", "127.0.0.1", "Check")


@pytest.mark.parametrize(
    ("request_json", "known", "reason"),
    [
        ({"query": " "}, {}, "INVALID_REQUEST"),
        ({"query": " ", "pipeline": "threaded"}, {"pipeline": "threaded"}, "INVALID_REQUEST"),
        ({"query": "q", "pipeline": "no\x1b[31m such"}, {}, "PIPELINE_NOT_FOUND"),
    ],
)
async def test_a_refusal_is_one_line_with_its_reason(
    fake: Served, lines: list[EventDict], request_json: dict[str, str], known: dict[str, str], reason: str
) -> None:
    """With the pipeline where it is one of the service's own, and with no word of the caller's unless quoted."""
    call = fake.stub.Chat(chat_pb2.ChatRequest(**request_json), metadata=[("x-request-id", "a b=c")])  # type: ignore[arg-type]  # strings all
    with pytest.raises(grpc.aio.AioRpcError):
        await all_events(call)
    line = line_of(lines, "refused")
    who = {"request_id": "'a b=c'", "principal": "anyone", "peer": "127.0.0.1", "method": "Chat"}
    assert line == {"event": "refused", "log_level": "info", "reason": reason, **who, **known}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("req-1", "req-1"),
        ("spiffe://house/gateway", "spiffe://house/gateway"),
        ("a b", "'a b'"),
        ("x ending=STOP", "'x ending=STOP'"),
        ("\x1b[31mred\n", r"'\x1b[31mred\n'"),
        ("\u202egnp", r"'\u202egnp'"),
        ("", "''"),
        ("x" * 200, repr("x" * 128)),
    ],
)
def test_a_name_that_a_caller_chose_passes_for_nothing_else(name: str, shown: str) -> None:
    """No line is broken, coloured or given a field by it."""
    assert printable(name) == shown


def test_a_story_has_all_that_led_to_an_error_once() -> None:
    """Causes, what was being handled, and the members of groups; even where one of them is its own cause."""
    try:
        try:
            raise KeyError("swordfish")  # noqa: TRY301 - to be handled
        except KeyError as error:
            raise ExceptionGroup("swordfish", [OSError("swordfish"), error]) from error
    except ExceptionGroup as group:
        group.exceptions[0].__cause__ = group
        story = story_of(group)
    words = story.splitlines()
    assert words[-1] == "ExceptionGroup"
    assert (words.count("KeyError"), words.count("OSError"), words.count("ExceptionGroup")) == (1, 1, 1)
    assert "raise KeyError" in story
    assert [line for line in words if "swordfish" in line and "raise" not in line] == []


def test_every_ending_has_a_word_of_its_own() -> None:
    """The contract's: those of `finished`, and the reasons of the statuses."""
    words = every_ending()
    assert len(set(words)) == len(words)
    assert {"STOP", "INCOMPLETE", "RUN_CANCELLED", "DISCONNECTED", "PROVIDER_BUSY", "SLOW_READER", "INTERNAL"} <= set(
        words
    )


def test_a_pace_counts_what_models_say_and_nothing_else() -> None:
    """Text, reasoning and tool calls, by their bytes in UTF-8, even where they are half a character."""
    pace = Pace()
    assert (pace.chunks, pace.first_chunk_seconds, pace.gap_seconds) == (0, None, 0)
    for event in (
        Started("r", "p"),
        Text("c", 0, "ä"),
        Documents("c", ()),
        Reasoning("c", 0, "ab"),
        Text("c", 0, "\ud83d"),
    ):
        pace.add(event)
    pace.add(ToolCall("c", 0, "i", "n", "{}"))
    assert (pace.chunks, pace.chunk_bytes, sum(pace.gap_counts)) == (4, 2 + 2 + 3 + 2, 3)
    assert pace.first_chunk_seconds is not None
    assert 0 <= pace.first_chunk_seconds + pace.gap_seconds <= pace.seconds
    pace.end()
    assert pace.seconds == pace.seconds


QUERY, KEY, BEARER, RAISED = "marker-of-the-query", "marker-of-the-key", "marker-of-the-bearer", "marker-of-the-error"
ANSWER = "marker-of-the-answer"

LEAKY = f'''
"""Says what nobody else is to read, and fails as badly as can be when asked to."""

from haystack import Pipeline, component

WORDS = "{RAISED}"  # not where it is raised: lines of code are shown


@component
class Leaky:
    def __init__(self, api_key):
        self.key = api_key.resolve_value() if api_key else ""

    @component.output_types(replies=list[str])
    def run(self, query: str, streaming_callback=None):
        from haystack.dataclasses import StreamingChunk
        streaming_callback(StreamingChunk(content="{ANSWER}"))
        if "fail" in query:
            raise ValueError(f"{{WORDS}} {{query}} {{self.key}}")
        return {{"replies": ["{ANSWER}"]}}


def build(api_key=None):
    pipeline = Pipeline()
    pipeline.add_component("llm", Leaky(api_key))
    return pipeline
'''


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_nothing_that_users_send_shows_up_anywhere(tmp_path: Path, log_format: str) -> None:
    """Not question, answer, provider's key, bearer token, nor an exception's words: in no line, metric, span, error.

    The real command, with its log, its metrics and its traces as an operator has them.
    """
    (tmp_path / "leaky.py").write_text(LEAKY)
    async with receiving() as receiver:
        settings = {
            "HAYSTREAM_PIPELINES": str(tmp_path),
            "HAYSTREAM_METRICS_LISTEN": "127.0.0.1:0",
            "HAYSTREAM_LOG_FORMAT": log_format,
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "HAYSTACK_CONTENT_TRACING_ENABLED": "true",
        }
        async with started("haystream_service", **settings) as process:
            address = await address_of(process)
            metrics, told = await ready(process)
            errors = await provoked(address)
            page = await fetched(metrics)
            process.send_signal(signal.SIGTERM)
            _, log = await process.communicate()
        assert process.returncode == 0
    spans = receiver.received
    told += log.decode()
    assert told.count("run ended") == 1
    assert told.count("run failed") == 1
    assert told.count("refused") == 2
    assert "ValueError" in told
    assert 'haystream_runs_total{ending="COMPONENT_FAILED",pipeline="leaky"} 1.0' in page
    assert CHAT.encode() in spans
    assert b"haystack.component.run" in spans
    assert "COMPONENT_FAILED" in errors
    for marker in (QUERY, ANSWER, KEY, BEARER, RAISED):
        assert marker not in told
        assert marker not in page
        assert marker.encode() not in spans
        assert marker not in errors
    if log_format == "json":
        parsed = [json.loads(line) for line in told.splitlines() if line.strip()]
        assert all("event" in line for line in parsed)


async def ready(process: asyncio.subprocess.Process) -> tuple[str, str]:
    """Read the log until the pipeline is warm; return where the metrics are, and what was read."""
    assert process.stderr is not None
    told = ""
    while "pipeline ready" not in told or "/metrics" not in told:
        told += (await process.stderr.readline()).decode()
    found = re.search(r"http://([^/]+/metrics)", told)
    assert found is not None
    return found[1], told


async def provoked(address: str) -> str:
    """Call in all ways that could give something away; return what the errors say."""
    metadata = [("authorization", f"Bearer {BEARER}"), ("x-request-id", "req-1")]
    said: list[str] = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        await all_events(stub.Chat(chat_pb2.ChatRequest(query=QUERY, api_key=KEY), metadata=metadata))
        for request in (
            chat_pb2.ChatRequest(query=f"{QUERY} fail", api_key=KEY),
            chat_pb2.ChatRequest(query=QUERY, api_key=f"{KEY}\n"),
            chat_pb2.ChatRequest(query=QUERY, api_key=KEY, streaming_components=["x"]),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await all_events(stub.Chat(request, metadata=metadata))
            said.append(f"{caught.value!r} {caught.value.trailing_metadata()!r}")
    return "\n".join(said)


async def fetched(url: str) -> str:
    """Fetch a page with nothing but a socket."""
    host, _, path = url.partition("/")
    name, _, port = host.partition(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    writer.write(f"GET /{path} HTTP/1.0\r\n\r\n".encode())
    page = await reader.read()
    writer.close()
    await writer.wait_closed()
    return page.decode()
