"""What Prometheus gets to see of RPCs: each by its code, and no labels that callers choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from haystream.v1 import chat_pb2
from haystream_service.telemetry.rpc_metrics import code_word
from tests.calls import all_events
from tests.scrape import measured, scraped

if TYPE_CHECKING:
    from tests.fakes import Stage
    from tests.scrape import Scrape

SERVICE = "haystream.v1.ChatService"
CHAT = {"grpc_type": "server_stream", "grpc_service": SERVICE, "grpc_method": "Chat"}


def codes(scrape: Scrape, method: str) -> dict[str, float]:
    """Return how often a method was answered with which code."""
    words = scrape.labels("grpc_server_handled_total", "grpc_code")
    found = {word: scrape.total("grpc_server_handled_total", grpc_method=method, grpc_code=word) for word in words}
    return {word: count for word, count in found.items() if count}


async def services_of(channel: Any) -> str:
    """Ask by reflection which services there are."""
    call = channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=str,
    )()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = str(await call.read())
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    return answer


async def test_codes_are_gos_words() -> None:
    """Dashboards made for go-grpc-middleware ask for these."""
    words = "OK Canceled Unknown InvalidArgument DeadlineExceeded NotFound AlreadyExists PermissionDenied"
    words += " ResourceExhausted FailedPrecondition Aborted OutOfRange Unimplemented Internal Unavailable DataLoss"
    words += " Unauthenticated"
    assert {code_word(code) for code in grpc.StatusCode} == set(words.split())


async def test_every_rpc_is_counted_by_its_code(stage: Stage) -> None:
    """A refusal, an ending, and answers that are no stream."""
    stage.error = ValueError("no")
    stage.proceed.set()
    async with measured() as running:
        with pytest.raises(grpc.aio.AioRpcError):
            await all_events(running.stub.Chat(chat_pb2.ChatRequest()))
        with pytest.raises(grpc.aio.AioRpcError):
            await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q")))
        await running.stub.ListPipelines(chat_pb2.ListPipelinesRequest())
        with pytest.raises(grpc.aio.AioRpcError):
            await running.stub.Cancel(chat_pb2.CancelRequest(run_id="nobody's"))
        scrape = await scraped(running.service)
    assert codes(scrape, "Chat") == {"InvalidArgument": 1, "Internal": 1}
    assert codes(scrape, "ListPipelines") == {"OK": 1}
    assert codes(scrape, "Cancel") == {"InvalidArgument": 1}
    assert scrape.value("grpc_server_started_total", **CHAT) == 2
    assert scrape.value("grpc_server_handling_seconds_count", **CHAT) == 2
    assert scrape.value("haystream_refusals_total", reason="INVALID_REQUEST") == 2
    assert scrape.value("haystream_runs_total", pipeline="fake", ending="COMPONENT_FAILED") == 1


async def test_a_caller_who_leaves_counts_as_canceled(stage: Stage) -> None:
    """And not as OK, as it would to whoever only sees that the handler came to no harm."""
    stage.chunks = 1
    async with measured() as running:
        call = running.stub.Chat(chat_pb2.ChatRequest(query="q"))
        await stage.waiting.wait()
        call.cancel()
        await stage.cancelled.wait()
        await running.runs.until_idle()
        scrape = await scraped(running.service)
    assert codes(scrape, "Chat") == {"Canceled": 1}
    assert scrape.value("haystream_runs_total", pipeline="fake", ending="DISCONNECTED") == 1


async def test_a_caller_who_leaves_in_the_middle_of_a_write_counts_as_canceled(stage: Stage) -> None:
    """There the handler gets an error of gRPC's own, and no cancellation."""
    stage.chunks, stage.text = 100_000, "x" * 10_000
    async with measured(queue_bytes=10_000) as running:
        call = running.stub.Chat(chat_pb2.ChatRequest(query="q"))
        await call.read()
        await stage.stands_still()
        call.cancel()
        await stage.cancelled.wait()
        await running.runs.until_idle()
        scrape = await scraped(running.service)
    assert codes(scrape, "Chat") == {"Canceled": 1}


async def test_a_deadline_counts_as_deadline_exceeded(stage: Stage) -> None:
    """Whoever notices it first."""
    async with measured() as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q"), timeout=0.2))
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await stage.cancelled.wait()
        await running.runs.until_idle()
        scrape = await scraped(running.service)
    assert codes(scrape, "Chat") == {"DeadlineExceeded": 1}
    assert scrape.value("haystream_runs_total", pipeline="fake", ending="DEADLINE_EXCEEDED") == 1


async def test_health_and_reflection_work_as_before_and_are_counted(stage: Stage) -> None:
    """A watch that goes on until its caller leaves, and a handler that is a generator."""
    async with measured() as running:
        health = health_pb2_grpc.HealthStub(running.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert await watch.read() == health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="nobody"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert SERVICE in await services_of(running.channel)
        hurried = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=0.2)
        await hurried.read()
        with pytest.raises(grpc.aio.AioRpcError):
            await hurried.read()
        watch.cancel()
        scrape = await scraped(running.service)
        while len(codes(scrape, "Watch")) < 2:
            scrape = await scraped(running.service)
    assert codes(scrape, "Watch") == {"Canceled": 1, "DeadlineExceeded": 1}
    assert codes(scrape, "Check") == {"NotFound": 1}
    assert codes(scrape, "ServerReflectionInfo") == {"OK": 1}


async def test_what_has_not_happened_is_there_as_zero(stage: Stage) -> None:
    """Otherwise the first failure of its kind would be no increase, and no alert."""
    async with measured() as running:
        scrape = await scraped(running.service)
    assert scrape.value("haystream_runs_total", pipeline="fake", ending="PROVIDER_BUSY") == 0
    assert scrape.value("haystream_refusals_total", reason="TOKEN_INVALID") == 0
    assert scrape.value("grpc_server_handled_total", grpc_code="Unavailable", **CHAT) == 0
    assert scrape.value("grpc_server_started_total", **CHAT) == 0
    assert len(scrape.labels("grpc_server_handled_total", "grpc_code")) == 17


async def test_unknown_methods_make_no_labels(stage: Stage) -> None:
    """Callers choose such names, and there is no end of them."""
    async with measured() as running:
        for method in (f"/{SERVICE}/Nothing", "/made.up/Chat", "/x/y/z"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await cast("Any", running.channel).unary_unary(method)(b"")
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        scrape = await scraped(running.service)
    assert "Nothing" not in scrape.text
    assert "made.up" not in scrape.text


async def test_pipelines_that_there_are_not_make_no_labels(stage: Stage) -> None:
    """As methods."""
    async with measured() as running:
        with pytest.raises(grpc.aio.AioRpcError):
            await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q", pipeline="made-up")))
        scrape = await scraped(running.service)
    assert "made-up" not in scrape.text
    assert scrape.value("haystream_refusals_total", reason="PIPELINE_NOT_FOUND") == 1
