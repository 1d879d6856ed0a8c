"""Streams that the gateway ends, or whose other side is gone: a drain, silence, a reader who takes nothing."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import grpc
import httpx_sse
import pytest

from haystream.v1 import chat_pb2
from haystream_gateway.streams import Silence
from haystream_service.status import Status
from tests.clock import clocked
from tests.conftest import Browser, Served, browsed, served
from tests.frames import frames_of
from tests.scripted import STARTED, Foreign, Scripted, behind_gateway

if TYPE_CHECKING:
    from tests.fakes import Stage


async def test_a_gateway_that_drains_lets_its_readers_attach_to_another(fake: Served, stage: Stage) -> None:
    """Runs with a grace outlive it: a retryable error, and the rest from the gateway beside it."""
    stage.chunks, stage.more = 1, 2
    body = {"query": "q", "run_id": "mine", "on_disconnect": "continue", "disconnect_grace_seconds": 30}
    async with browsed(fake.address) as browser, browsed(fake.address) as other:
        async with httpx_sse.aconnect_sse(browser.http, "POST", "/chat", json=body) as source:
            frames = source.aiter_sse()
            before = [await anext(frames), await anext(frames)]
            browser.gateway.streams.drain()
            (error,) = [frame async for frame in frames]
        not_ready = await browser.http.get("/readyz")
        stage.proceed.set()
        async with httpx_sse.aconnect_sse(
            other.http, "GET", "/runs/mine/events", headers={"Last-Event-ID": error.id}
        ) as source:
            after = [frame async for frame in source.aiter_sse()]
    assert error.event == "error"
    assert (json.loads(error.data)["reason"], json.loads(error.data)["retryable"]) == ("DRAINING", True)
    assert error.id == before[-1].id
    text = "".join(json.loads(frame.data) for frame in [*before, *after] if frame.event == "data")
    assert text == "word " * 3
    assert (not_ready.status_code, not_ready.json()["reason"]) == (503, "DRAINING")
    assert len(stage.received) == 1


async def test_a_gateway_that_drains_begins_no_stream(page: Browser, stage: Stage) -> None:
    """On a connection that was there before, for example."""
    await page.http.get("/livez")
    page.gateway.streams.drain()
    answer = await page.http.post("/chat", json={"query": "q"})
    assert (answer.status_code, answer.json()["reason"], answer.headers["retry-after"]) == (503, "DRAINING", "1")
    assert stage.received == []


@pytest.mark.parametrize(
    ("status", "is_last_word"),
    [
        (Status(grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE", "words"), True),
        (Status(grpc.StatusCode.ABORTED, "RUN_CANCELLED", "words"), True),
        (Status(grpc.StatusCode.ABORTED, "SLOW_READER", "words"), False),
        (Status(grpc.StatusCode.UNAVAILABLE, "DRAINING", "words"), False),
        *((Foreign(code), False) for code in grpc.StatusCode if code is not grpc.StatusCode.OK),
        (None, False),
    ],
    ids=lambda value: getattr(value, "reason", getattr(value, "code", value)),
)
async def test_only_the_service_can_say_a_runs_last_word(status: Status | None, is_last_word: bool) -> None:
    """Whatever else breaks a stream, more of the run may be there: its reader comes back with the frame before."""
    word = chat_pb2.Event(seq=3, text=chat_pb2.TextDelta(component="llm", delta="word"))
    async with behind_gateway(Scripted([STARTED, word], status)) as browser:
        *_, last, error = await frames_of(browser, query="q")
    assert (last.id, error.event) == ("r-1:3", "error")
    assert error.id == ("r-1:4" if is_last_word else "r-1:3")
    assert json.loads(error.data)["last_seq"] == 3


async def test_a_service_that_falls_silent_is_given_up(stage: Stage) -> None:
    """Not even a heartbeat comes: its readers are told to come back."""
    stage.chunks = 1
    async with (
        served(default_pipeline="fake", heartbeat_seconds=60) as running,
        browsed(running.address, gateway_silence_seconds=0.2) as browser,
    ):
        frames = await frames_of(browser, query="q")
    error = json.loads(frames[-1].data)
    assert (frames[-1].event, error["reason"], error["retryable"]) == ("error", "SERVICE_SILENT", True)


def test_silence_is_what_passes_while_the_service_is_waited_for() -> None:
    """Not while a slow browser is: the time between two waits does not count."""
    with clocked() as loop:
        too_long: list[float] = []

        async def begin() -> Silence:
            return Silence(10, lambda: too_long.append(loop.time()))

        silence = loop.run_until_complete(begin())
        loop.turn(100)
        silence.begins()
        loop.turn(9)
        silence.ends()
        loop.turn(50)
        silence.begins()
        loop.turn(9)
        assert too_long == []
        loop.turn(1)
        assert too_long == [169]
        silence.stop()


async def test_a_reader_who_takes_nothing_is_cut_off(stage: Stage) -> None:
    """By the kernel, which frees the stream, and stops the model."""
    stage.chunks, stage.text = 50_000, "x" * 1000
    async with (
        served(default_pipeline="fake") as running,
        browsed(running.address, slow_reader_seconds=0.5, gateway_reconnect_seconds=0) as browser,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", browser.gateway.port)
        writer.write(b"GET /chat?query=q HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"event: data")
        async with asyncio.timeout(20):
            await running.runs.until_idle()
        writer.transport.abort()
