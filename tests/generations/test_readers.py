"""Readers who leave, come back or are behind, on every generation of Haystack: what it means to the model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc.aio
import pytest

from haystream.v1 import chat_pb2
from tests.calls import all_events, complaint_of
from tests.generations.conversation import ASK, gone, is_left, read_until, say, say_next
from tests.generations.installed import GENERATION, Kind
from tests.generations.parts import TALK, TALKED_CHUNKS, TALKED_TEXT

if TYPE_CHECKING:
    from tests.conftest import Served
    from tests.generations.parts import Stage
    from tests.providers import Provider

pytestmark = [pytest.mark.filterwarnings(warning) for warning in GENERATION.warnings]


async def test_leaving_stops_the_model(chatting: Served, talking: Provider, speaker: Kind) -> None:
    """The provider sees its caller go: on the loop at once, in the middle of its silence; in a thread at its word."""
    call = chatting.stub.Chat(ASK)
    await read_until(call, "word ")
    call.cancel()
    await is_left(chatting, talking, speaker)


async def test_cancel_stops_the_model(chatting: Served, talking: Provider, speaker: Kind) -> None:
    """And the reader is told."""
    call = chatting.stub.Chat(ASK)
    await read_until(call, "word ")
    await chatting.stub.Cancel(chat_pb2.CancelRequest(run_id="r"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(call)
    complaint = complaint_of(caught.value)
    assert (complaint.code, complaint.reason) == ("ABORTED", "RUN_CANCELLED")
    await is_left(chatting, talking, speaker)


async def test_a_deadline_stops_the_model(chatting: Served, talking: Provider, speaker: Kind) -> None:
    """The caller's own."""
    call = chatting.stub.Chat(ASK, timeout=2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(call)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await is_left(chatting, talking, speaker)


async def test_a_run_that_continues_is_read_on_from_where_its_reader_left(chatting: Served, talking: Provider) -> None:
    """Nothing twice, nothing missing."""
    request = chat_pb2.ChatRequest(query="Why?", run_id="r", on_disconnect=chat_pb2.ON_DISCONNECT_CONTINUE)
    call = chatting.stub.Chat(request)
    before = await read_until(call, "word ")
    call.cancel()
    say_next(talking, 1)
    resumed = chatting.stub.Resume(chat_pb2.ResumeRequest(run_id="r", after_seq=before[-1].seq))
    response = await anext(aiter(resumed))
    assert response.event.text.delta == "word "
    assert response.event.seq == before[-1].seq + 1
    await chatting.stub.Cancel(chat_pb2.CancelRequest(run_id="r"))
    say_next(talking, 1)
    await gone(talking)


async def test_a_reader_who_is_behind_holds_the_model_back(acting: Served, stage: Stage) -> None:
    """Beyond the windows of the connection and the run's queue it waits; nothing is lost when the reader goes on."""
    reader = aiter(acting.stub.Chat(say(TALK)))
    size = 0
    while not size:
        size = len((await anext(reader)).event.text.delta)
    assert not await asyncio.to_thread(stage.talked_all.wait, 0.5)
    async for response in reader:
        size += len(response.event.text.delta)
    assert size == TALKED_CHUNKS * len(TALKED_TEXT)
