"""Chats that are refused, or lose their connection: which of them the gateway asks again, and that each runs once."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_service.status import Status
from tests.calls import all_events, kinds_of
from tests.conftest import browsed, served
from tests.frames import frames_of
from tests.scripted import STARTED, Foreign, Scripted, behind_gateway, scripted, text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.conftest import Browser, Served
    from tests.fakes import Gate, Stage

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # https://www.rfc-editor.org/rfc/rfc9113.html#section-3.4
HEADERS = 1
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


async def asked(browser: Browser) -> list[str]:
    """Ask the gateway, and return the names of the frames that it answers."""
    return [frame.event for frame in await frames_of(browser, query="q")]


async def test_a_chat_that_a_draining_service_refuses_goes_to_another_by_itself(echo: Served, stage: Stage) -> None:
    """Its caller sees nothing of it, and it runs once."""
    stack = AsyncExitStack()
    draining = await stack.enter_async_context(served(default_pipeline="fake", drain_seconds=60))
    async with grpc.aio.insecure_channel(draining.address) as channel:
        call = chat_pb2_grpc.ChatServiceStub(channel).Chat(chat_pb2.ChatRequest(query="long"))
        await stage.waiting.wait()
        watch = asyncio.create_task(all_events(call))
        closing = asyncio.create_task(stack.aclose())
        async with browsed(f"ipv4:{draining.address},{echo.address}") as browser:
            await refuses(draining.address)
            for _ in range(6):
                assert (await asked(browser))[-1] == "end"
        stage.proceed.set()
        assert kinds_of(await watch)[-1] == "finished"
        await closing
    assert [received["query"] for received in stage.received] == ["long"]


async def refuses(address: str) -> None:
    """Wait until a service takes no new runs."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        while True:
            call = stub.Chat(chat_pb2.ChatRequest(query="q", pipeline="nobody"))
            try:
                await all_events(call)
            except grpc.aio.AioRpcError as error:
                if error.code() is UNAVAILABLE:
                    return


@asynccontextmanager
async def hanging_up() -> AsyncGenerator[tuple[str, list[bytes]]]:
    """Run something that speaks HTTP/2 until a call has come, and hangs up then; yield its address, and the calls."""
    calls: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not calls:  # once is enough
            await reader.readexactly(len(PREFACE))
            writer.write(SETTINGS)
            head = bytes(9)  # length, kind, flags, stream
            while head[3] != HEADERS:
                head = await reader.readexactly(len(head))
                await reader.readexactly(int.from_bytes(head[:3]))
            calls.append(head)
        writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", calls


async def test_a_chat_whose_connection_is_lost_before_the_first_word_goes_to_another_by_itself() -> None:
    """As when a service is killed, or its machine."""
    service = Scripted()
    async with hanging_up() as (lost, calls), scripted(service) as address:
        async with browsed(f"ipv4:{lost},{address}") as browser:
            while not calls:
                assert await asked(browser) == ["metadata", "end"]
    assert len(calls) == 1


@asynccontextmanager
async def losing_the_first_answer(address: str, begun: Gate) -> AsyncGenerator[str]:
    """Stand between the gateway and a service, and hang up on the gateway once, when its first run has begun.

    The service learns nothing of it.
    """
    host, _, port = address.partition(":")
    connections: list[asyncio.Task[None] | None] = []
    over = asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())
        answers, service = await asyncio.open_connection(host, int(port))
        ways = [asyncio.create_task(passed_on(reader, service))]
        if len(connections) > 1:
            ways.append(asyncio.create_task(passed_on(answers, writer)))
        else:
            head = await answers.readexactly(9)
            while head[3] != HEADERS:
                writer.write(head + await answers.readexactly(int.from_bytes(head[:3])))
                head = await answers.readexactly(9)
            await begun.wait()
            writer.transport.abort()
        await over.wait()
        service.transport.abort()
        writer.transport.abort()
        await asyncio.gather(*ways)

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    async with server:
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            over.set()
            await asyncio.gather(*filter(None, connections))
    assert len(connections) > 1


async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write all that can be read."""
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)


@pytest.mark.parametrize("method", ["GET", "POST", "completion"])
async def test_a_chat_whose_answer_is_lost_on_the_way_runs_once(stage: Stage, method: str) -> None:
    """Asked again it finds its run by the id that the gateway gave it; its caller has given none."""
    async with served(default_pipeline="fake") as running:
        async with losing_the_first_answer(running.address, stage.waiting) as address, browsed(address) as browser:
            if method == "GET":
                asking = asyncio.create_task(browser.http.get("/chat?query=q"))
            elif method == "POST":
                asking = asyncio.create_task(browser.http.post("/chat", json={"query": "q"}))
            else:
                completion = {"model": "fake", "messages": [{"role": "user", "content": "q"}]}
                asking = asyncio.create_task(browser.http.post("/v1/chat/completions", json=completion))
            await stage.waiting.wait()
            stage.proceed.set()
            assert (await asking).status_code == 200
    assert len(stage.received) == 1


async def test_a_chat_that_is_refused_everywhere_is_refused_after_four_times() -> None:
    """No request is too long for it."""
    service = Scripted(events=(), status=Foreign(UNAVAILABLE))
    async with behind_gateway(service) as browser:
        answer = await browser.http.post("/chat", json={"query": "x" * (3 << 20)})
    assert (answer.status_code, answer.json()["reason"]) == (503, "SERVICE_UNREACHABLE")
    assert len(service.requests) == 4
    (run_id,) = {request.run_id for request in service.requests}
    assert re.fullmatch(r"[0-9a-f]{24}", run_id)


async def test_a_chat_that_has_begun_is_not_sent_again() -> None:
    """It would run twice."""
    service = Scripted(events=(STARTED, text("word")), status=Status(UNAVAILABLE, "DRAINING", "words"))
    async with behind_gateway(service) as browser:
        assert await asked(browser) == ["metadata", "data", "error"]
    assert len(service.requests) == 1


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code not in {UNAVAILABLE, grpc.StatusCode.OK}])
async def test_a_chat_that_is_refused_for_another_reason_is_not_sent_again(code: grpc.StatusCode) -> None:
    """It would be refused again, or is the caller's to repeat."""
    service = Scripted(events=(), status=Status(code, "WORDS", "words"))
    async with behind_gateway(service) as browser:
        await browser.http.get("/chat?query=q")
    assert len(service.requests) == 1


async def test_readiness_is_asked_once() -> None:
    """Who asks every few seconds wants an answer about now."""
    async with scripted(Scripted()) as address, browsed(address) as browser:
        answer = await browser.http.get("/readyz")
    assert answer.status_code == 501
