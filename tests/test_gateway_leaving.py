"""Readers who leave the gateway: whatever it is doing for them, it stops, and the model with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx_sse
import pytest
import structlog

from haystream.v1 import chat_pb2
from haystream_gateway.event_stream import Dialect, EventStream
from haystream_gateway.frames import error_frame, event_frames
from haystream_gateway.streams import LEFT, Streams
from haystream_service.run.ending import Disconnected
from tests.conftest import Browser, Served, browsed, served
from tests.scripted import Scripted, behind_gateway

if TYPE_CHECKING:
    from starlette.types import Message

    from tests.fakes import Stage


@pytest.mark.parametrize("moment", ["while the model thinks", "between words"])
async def test_a_browser_that_leaves_stops_the_model(page: Browser, fake: Served, stage: Stage, moment: str) -> None:
    """Its connection's end cancels the call, which stops the run, at once."""
    stage.chunks = 0 if moment == "while the model thinks" else 5
    async with httpx_sse.aconnect_sse(page.http, "POST", "/chat", json={"query": "q"}) as source:
        frames = source.aiter_sse()
        await anext(frames)
        await stage.waiting.wait()
        run = next(iter(fake.runs))
    async with asyncio.timeout(5):
        await stage.cancelled.wait()
        await fake.runs.drain(grace_seconds=5)
    assert run.ending == Disconnected()


async def test_a_browser_that_leaves_before_the_first_frame_stops_the_model(fake: Served, stage: Stage) -> None:
    """Also where it is gone before the response has begun, and whatever is sent goes nowhere."""
    endings: list[str] = []
    sent: list[bytes] = []
    streams = Streams(60, endings.append)

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    async def into_the_void(_: Message) -> None:
        """As the server does for who is gone."""

    stream = streams.open(fake.stub.Chat(chat_pb2.ChatRequest(query="q")))
    assert await stream.begin()
    response = EventStream(stream, Dialect(event_frames, error_frame), sent.append, structlog.get_logger())
    await stage.waiting.wait()
    await response({"type": "http", "asgi": {"spec_version": "2.3"}}, gone, into_the_void)
    async with asyncio.timeout(5):
        await stage.cancelled.wait()
    assert len(streams) == 0
    assert endings == [LEFT]


async def test_a_browser_that_leaves_while_a_send_is_blocked_frees_everything(stage: Stage) -> None:
    """A reader that took nothing and goes leaves no run and no stream behind."""
    stage.chunks, stage.text = 50_000, "x" * 1000
    async with (
        served(default_pipeline="fake") as running,
        browsed(running.address, gateway_reconnect_seconds=0) as browser,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", browser.gateway.port)
        writer.write(b"GET /chat?query=q HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"event: data")
        assert 0 < await stage.stands_still() < stage.chunks
        run = next(iter(running.runs))
        writer.transport.abort()
        async with asyncio.timeout(5):
            await running.runs.until_idle()
        assert run.ending == Disconnected()


async def test_leaving_before_the_service_has_answered_cancels_the_call() -> None:
    """While it builds a pipeline or fetches a picture, for example: nothing is started for nobody."""
    service = Scripted([], waits=True)
    async with behind_gateway(service) as browser:
        asking = asyncio.create_task(browser.http.post("/chat", json={"query": "q"}))
        await service.asked.wait()
        asking.cancel()
        async with asyncio.timeout(1):
            await service.left.wait()
            with pytest.raises(asyncio.CancelledError):
                await asking
