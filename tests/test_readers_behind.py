"""Readers who are behind: the model waits for them, the drain waits for them, and neither for ever."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import grpc.aio
import pytest

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_service.run.ending import Completed
from tests.calls import all_events, complaint_of, kinds_of, text_of
from tests.conftest import served
from tests.raw_reader import raw_reader

if TYPE_CHECKING:
    from tests.fakes import Stage

ASK = chat_pb2.ChatRequest(query="q")
KINDS = ["fake", "threaded", "agent"]  # an async generator, a sync one, and an Agent in its second turn


@pytest.mark.parametrize("kind", KINDS)
async def test_a_socket_that_nobody_reads_holds_the_model_back_and_not_the_memory(stage: Stage, kind: str) -> None:
    """The model waits, the queue stays within its budget, and the reader that goes on gets all or a typed end."""
    stage.chunks, stage.text = 60_000, "x" * 1000
    stage.proceed.set()
    async with served(default_pipeline=kind, slow_reader_seconds=0.5) as running:
        with raw_reader(running.address, ASK) as reader:
            async with asyncio.timeout(20):
                await stage.cancelled.wait()
            size, trailers = await asyncio.to_thread(reader.read_to_end)
    assert stage.said < 12_000  # the window, what the kernel holds, the queue twice
    assert 0 < size < 1000 * stage.said + 100_000
    assert trailers["grpc-status"] == str(grpc.StatusCode.ABORTED.value[0])
    assert int(trailers["x-last-seq"]) > 1


async def test_a_finished_answer_that_is_still_being_read_is_not_cut_off(stage: Stage) -> None:
    """The drain waits for readers as it waits for models."""
    stage.chunks, stage.text = 16_000, "x" * 1000  # more than HTTP/2's window, less than the queue
    stage.proceed.set()
    stack = AsyncExitStack()
    running = await stack.enter_async_context(served(default_pipeline="fake", drain_seconds=20, queue_bytes=40_000_000))
    async with grpc.aio.insecure_channel(running.address) as channel:
        reader = aiter(chat_pb2_grpc.ChatServiceStub(channel).Chat(ASK))
        events = [(await anext(reader)).event]
        [run] = running.runs
        await stage.waiting.wait()
        closing = asyncio.create_task(stack.aclose())
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == f"run {run.id}"))
        assert run.ending == Completed()
        assert not closing.done()
        events += [response.event async for response in reader]
        await closing
    assert len(text_of(events)) == 16_000_000
    assert kinds_of(events)[-1] == "finished"


async def test_a_reader_that_takes_nothing_does_not_hold_up_the_end(stage: Stage) -> None:
    """After the drain it is dismissed, and the service goes."""
    stage.chunks, stage.text = 20_000, "x" * 1000
    async with served(default_pipeline="fake", drain_seconds=0.1) as running:
        reader = aiter(running.stub.Chat(ASK))
        await anext(reader)
        async with asyncio.timeout(10):
            await running.runs.drain(grace_seconds=0.1)
        assert len(running.runs) == 0
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in reader:
                pass
    complaint = complaint_of(caught.value)
    assert (complaint.code, complaint.reason) == ("UNAVAILABLE", "DRAINING")


async def test_an_answer_that_is_still_being_read_counts_as_a_run(stage: Stage) -> None:
    """Its memory is not free yet, however soon the model was done."""
    stage.chunks, stage.text = 16_000, "x" * 1000
    stage.proceed.set()
    async with served(default_pipeline="fake", max_runs=1, queue_bytes=40_000_000) as running:
        reader = aiter(running.stub.Chat(ASK))
        await anext(reader)
        await stage.waiting.wait()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await all_events(running.stub.Chat(ASK))
        assert complaint_of(caught.value).reason == "TOO_MANY_RUNS"
        async for _ in reader:
            pass
        assert kinds_of(await all_events(running.stub.Chat(ASK)))[-1] == "finished"
