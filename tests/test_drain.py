"""The end of a real process: what its callers see from the signal to the exit code."""

from __future__ import annotations

import asyncio
import os
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

# Says a word, and comes to its end when something is written into the pipe named in the query.
WAITING = """
import asyncio
import os
from haystack.dataclasses import StreamingChunk
from tests.fakes import OnLoop, pipeline_of, replied


async def wait(query, streaming_callback):
    await streaming_callback(StreamingChunk(content="word"))
    loop, written = asyncio.get_running_loop(), asyncio.Event()
    pipe = os.open(query, os.O_RDWR)  # a pipe that somebody may still write into has no end
    loop.add_reader(pipe, written.set)
    try:
        await written.wait()
    finally:
        loop.remove_reader(pipe)
        os.close(pipe)
    return replied("word")


def build():
    return pipeline_of(OnLoop(wait))
"""


@pytest.fixture
def waiting(tmp_path: Path) -> dict[str, str]:
    """The settings of a service whose only pipeline waits for its test."""
    pipelines = tmp_path / "pipelines"
    pipelines.mkdir()
    (pipelines / "waiting.py").write_text(WAITING)
    return {"HAYSTREAM_PIPELINES": str(pipelines)}


@pytest.fixture
def end(tmp_path: Path) -> Path:
    """The pipe into which a test writes for a run to come to its end."""
    return piped(tmp_path / "end")


@pytest.fixture
def never(tmp_path: Path) -> Path:
    """A pipe into which nobody writes."""
    return piped(tmp_path / "never")


def piped(path: Path) -> Path:
    """Make a pipe."""
    os.mkfifo(path)
    return path


def write_into(path: Path) -> None:
    """Write into a pipe. Fails where nobody waits for it."""
    pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.write(pipe, b"now")
    os.close(pipe)


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


async def test_a_service_that_drains_keeps_every_promise_in_its_order(
    waiting: dict[str, str], end: Path, never: Path
) -> None:
    """Not ready at once; new runs refused; running ones finish; the rest are told where they stand; exit 0."""
    settings = {**waiting, "HAYSTREAM_DRAIN_SECONDS": "2"}
    async with started("haystream_service", **settings) as process:
        async with grpc.aio.insecure_channel(await address_of(process)) as channel:
            watch = await watching(channel)
            short, long = await begun(channel, str(end)), await begun(channel, str(never))
            process.send_signal(signal.SIGTERM)
            assert (await anext(watch)).status == NOT_SERVING
            assert not short.done()
            assert not long.done()
            await is_refused(channel)
            health = health_pb2_grpc.HealthStub(channel)
            assert (await health.Check(READY)).status == NOT_SERVING
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING  # it lives
            write_into(end)
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


async def test_a_run_may_be_cancelled_while_the_service_drains(waiting: dict[str, str], never: Path) -> None:
    """Nobody has to wait for the end of a drain to stop a model; and the service then goes at once."""
    settings = {**waiting, "HAYSTREAM_DRAIN_SECONDS": "60"}
    async with started("haystream_service", **settings) as process:
        async with grpc.aio.insecure_channel(await address_of(process)) as channel:
            watch = await watching(channel)
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            call = stub.Chat(chat_pb2.ChatRequest(query=str(never), run_id="r"))
            await anext(aiter(call))
            process.send_signal(signal.SIGTERM)
            assert (await anext(watch)).status == NOT_SERVING
            await stub.Cancel(chat_pb2.CancelRequest(run_id="r"))
            async with asyncio.timeout(5):
                await process.communicate()
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_service_at_once(
    waiting: dict[str, str], never: Path, number: signal.Signals
) -> None:
    """With exit code 1, since it did not drain; its callers' streams break."""
    settings = {**waiting, "HAYSTREAM_DRAIN_SECONDS": "60"}
    async with started("haystream_service", **settings) as process:
        async with grpc.aio.insecure_channel(await address_of(process)) as channel:
            watch = await watching(channel)
            call = await begun(channel, str(never))
            process.send_signal(number)
            assert (await anext(watch)).status == NOT_SERVING
            process.send_signal(number)
            async with asyncio.timeout(1):
                assert await process.wait() == 1
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await anext(aiter(call))
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
