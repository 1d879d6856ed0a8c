"""The end of a real process: what its callers see from the signal to the exit code."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream.v1 import chat_pb2, chat_pb2_grpc
from tests.calls import complaint_of, kinds_of
from tests.processes import address_of, started

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from typing import TypeAlias

    ChatCall: TypeAlias = grpc.aio.UnaryStreamCall[chat_pb2.ChatRequest, chat_pb2.ChatResponse]

READY = health_pb2.HealthCheckRequest(service="haystream.v1.ChatService")
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING

# Says a word, and comes to its end when the file named in the query is there.
WAITING = """
import asyncio
from pathlib import Path
from haystack import component
from haystack.dataclasses import ChatMessage, StreamingChunk
from tests.fakes import pipeline_of


@component
class Waiting:
    @component.output_types(replies=list[ChatMessage])
    async def run_async(self, query: str, streaming_callback=None):
        await streaming_callback(StreamingChunk(content="word"))
        while not Path(query).exists():
            await asyncio.sleep(0.01)
        return {"replies": [ChatMessage.from_assistant("word", meta={"finish_reason": "stop"})]}

    @component.output_types(replies=list[ChatMessage])
    def run(self, query: str, streaming_callback=None):
        raise NotImplementedError


def build():
    return pipeline_of(Waiting())
"""


@pytest.fixture
def waiting(tmp_path: Path) -> dict[str, str]:
    """The settings of a service whose only pipeline waits for its test."""
    pipelines = tmp_path / "pipelines"
    pipelines.mkdir()
    (pipelines / "waiting.py").write_text(WAITING)
    return {"HAYSTREAM_PIPELINES": str(pipelines)}


async def watching(channel: grpc.aio.Channel) -> AsyncIterator[health_pb2.HealthCheckResponse]:
    """Return a watch of readiness, read up to where the service is ready."""
    watch = aiter(health_pb2_grpc.HealthStub(channel).Watch(READY))
    while (await anext(watch)).status != SERVING:
        pass
    return watch


async def begun(
    channel: grpc.aio.Channel, query: str
) -> grpc.aio.UnaryStreamCall[chat_pb2.ChatRequest, chat_pb2.ChatResponse]:
    """Return a run that has said its word."""
    call = chat_pb2_grpc.ChatServiceStub(channel).Chat(chat_pb2.ChatRequest(query=query))
    reader = aiter(call)
    while not (await anext(reader)).event.HasField("text"):
        pass
    return call


async def test_a_service_that_drains_keeps_every_promise_in_its_order(tmp_path: Path, waiting: dict[str, str]) -> None:
    """Not ready at once; new runs refused; running ones finish; the rest are told where they stand; exit 0."""
    settings = {**waiting, "HAYSTREAM_DRAIN_SECONDS": "2"}
    async with started("haystream_service", **settings) as process:
        async with grpc.aio.insecure_channel(await address_of(process)) as channel:
            watch = await watching(channel)
            short, long = await begun(channel, str(tmp_path / "end")), await begun(channel, str(tmp_path / "never"))
            process.send_signal(signal.SIGTERM)
            assert (await anext(watch)).status == NOT_SERVING
            assert not short.done()
            assert not long.done()
            await is_refused(channel)
            health = health_pb2_grpc.HealthStub(channel)
            assert (await health.Check(READY)).status == NOT_SERVING
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING  # it lives
            (tmp_path / "end").touch()
            assert kinds_of([response.event async for response in short]) == ["finished"]
            assert not long.done()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in long:
                    pass
            complaint = complaint_of(caught.value)
            assert (complaint.code, complaint.reason) == ("UNAVAILABLE", "DRAINING")
            assert (complaint.metadata["last_seq"], complaint.trailers["x-last-seq"]) == ("2", "2")
            assert complaint.retry_seconds is not None
            async with asyncio.timeout(5):
                _, errors = await process.communicate()  # with the watch still open
            with pytest.raises(grpc.aio.AioRpcError):
                await anext(watch)
    assert process.returncode == 0
    assert b"Traceback" not in errors


async def is_refused(channel: grpc.aio.Channel) -> None:
    """Assert that a new run is, so that a client may go elsewhere by itself: nothing was sent before."""
    call = chat_pb2_grpc.ChatServiceStub(channel).Chat(chat_pb2.ChatRequest(query="q"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(call))
    complaint = complaint_of(caught.value)
    assert (complaint.code, complaint.reason) == ("UNAVAILABLE", "DRAINING")
    assert complaint.retry_seconds == 1
    assert not await call.initial_metadata()


async def test_a_run_may_be_cancelled_while_the_service_drains(waiting: dict[str, str]) -> None:
    """Nobody has to wait for the end of a drain to stop a model; and the service then goes at once."""
    settings = {**waiting, "HAYSTREAM_DRAIN_SECONDS": "60"}
    async with started("haystream_service", **settings) as process:
        async with grpc.aio.insecure_channel(await address_of(process)) as channel:
            watch = await watching(channel)
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            call = stub.Chat(chat_pb2.ChatRequest(query="/never", run_id="r"))
            await anext(aiter(call))
            process.send_signal(signal.SIGTERM)
            assert (await anext(watch)).status == NOT_SERVING
            await stub.Cancel(chat_pb2.CancelRequest(run_id="r"))
            async with asyncio.timeout(5):
                await process.communicate()
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_service_at_once(waiting: dict[str, str], number: signal.Signals) -> None:
    """With exit code 1, since it did not drain; its callers' streams break."""
    settings = {**waiting, "HAYSTREAM_DRAIN_SECONDS": "60"}
    async with started("haystream_service", **settings) as process:
        async with grpc.aio.insecure_channel(await address_of(process)) as channel:
            watch = await watching(channel)
            call = await begun(channel, "/never")
            process.send_signal(number)
            assert (await anext(watch)).status == NOT_SERVING
            process.send_signal(number)
            async with asyncio.timeout(1):
                assert await process.wait() == 1
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await anext(aiter(call))
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
