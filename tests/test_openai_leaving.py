"""Callers of OpenAI's dialect who leave, and a gateway that does: the model stops at once, or its reader is told."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import openai
import pytest

from tests.conftest import Browser, Served, browsed
from tests.openai_clients import QUESTION, asked, client_of, content_of
from tests.scripted import STARTED, Scripted, behind_gateway, text

if TYPE_CHECKING:
    from tests.fakes import Stage

STREAMED_OR_NOT = pytest.mark.parametrize("stream", [False, True], ids=["in one piece", "streamed"])


async def stopped(stage: Stage) -> None:
    """Wait until the model is stopped, but not for long."""
    async with asyncio.timeout(1):
        await stage.cancelled.wait()


async def test_closing_a_stream_stops_the_model(page: Browser, stage: Stage) -> None:
    """Not at its next word, which may be a while."""
    stage.chunks = 1
    async with client_of(page) as client:
        stream = await client.chat.completions.create(model="fake", messages=QUESTION, stream=True)
        while not content_of([await anext(stream)]):
            pass
        await stream.close()
        await stopped(stage)


async def test_leaving_the_helper_stops_the_model(page: Browser, stage: Stage) -> None:
    """By the end of its block."""
    stage.chunks = 1
    async with client_of(page) as client:
        async with client.chat.completions.stream(model="fake", messages=QUESTION) as stream:
            await anext(stream)
        await stopped(stage)


async def test_closing_a_stream_in_a_thread_stops_the_model(page: Browser, stage: Stage) -> None:
    """As the sync client does it."""
    stage.chunks = 1

    def leave() -> None:
        with openai.OpenAI(base_url=f"{page.url}/v1", api_key="caller", max_retries=0) as client:
            with client.chat.completions.create(model="fake", messages=QUESTION, stream=True) as stream:
                next(stream)

    await asyncio.to_thread(leave)
    await stopped(stage)


@STREAMED_OR_NOT
async def test_cancelling_a_task_that_waits_stops_the_model(page: Browser, stage: Stage, stream: bool) -> None:
    """For the whole of an answer, or for its first word."""
    async with client_of(page) as client:
        task = asked(client, stream=stream)
        await stage.waiting.wait()
        task.cancel()
        await stopped(stage)
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_client_whose_time_is_over_stops_the_model(page: Browser, stage: Stage) -> None:
    """It raises, and does not ask again unless it may."""
    stage.chunks = 1
    async with client_of(page, timeout=0.3) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(model="fake", messages=QUESTION)
        await stopped(stage)


async def test_a_model_in_a_thread_is_stopped_at_its_next_word(page: Browser, stage: Stage) -> None:
    """It cannot be sooner; and nothing is left of it."""
    stage.more = 1_000_000
    async with client_of(page) as client:
        task = asked(client, model="threaded")
        await stage.waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    stage.proceed.set()
    await stopped(stage)


@STREAMED_OR_NOT
async def test_leaving_before_the_service_has_answered_cancels_the_call(stream: bool) -> None:
    """While it builds a pipeline or fetches a picture, for example."""
    service = Scripted([], waits=True)
    async with behind_gateway(service) as browser, client_of(browser) as client:
        task = asked(client, model="scripted", stream=stream)
        await service.asked.wait()
        task.cancel()
        async with asyncio.timeout(1):
            await service.left.wait()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_run_that_is_to_go_on_goes_on(page: Browser, stage: Stage) -> None:
    """Where the caller has asked for that; the same id finds it again."""
    stage.chunks, stage.more = 1, 1
    body: Any = {"haystream": {"run_id": "mine", "on_disconnect": "continue"}}
    async with client_of(page) as client:
        stream = await client.chat.completions.create(model="fake", messages=QUESTION, stream=True, extra_body=body)
        await anext(stream)
        await stream.close()
        stage.proceed.set()
        answer = await client.chat.completions.create(model="fake", messages=QUESTION, extra_body=body)
    assert answer.choices[0].message.content == "word word "
    assert len(stage.received) == 1
    assert not stage.cancelled.is_set()


@STREAMED_OR_NOT
async def test_a_gateway_that_shuts_down_tells_those_who_wait(fake: Served, stage: Stage, stream: bool) -> None:
    """503, and when to come back: no word was said yet."""
    async with AsyncExitStack() as until_gone:
        browser = await until_gone.enter_async_context(browsed(fake.address))
        async with client_of(browser) as client:
            task = asked(client, stream=stream)
            await stage.waiting.wait()
            await until_gone.aclose()
            with pytest.raises(openai.InternalServerError) as caught:
                await task
    assert (caught.value.status_code, caught.value.code) == (503, "draining")
    assert caught.value.response.headers["retry-after"] == "1"
    await stopped(stage)


async def test_a_gateway_that_shuts_down_ends_a_stream_with_an_error() -> None:
    """In the middle of an answer."""
    async with behind_gateway(Scripted([STARTED, text("x")], waits=True)) as browser, client_of(browser) as client:
        stream = await client.chat.completions.create(model="scripted", messages=QUESTION, stream=True)
        await anext(stream)
        browser.gateway.streams.drain()
        with pytest.raises(openai.APIError) as caught:
            async for _ in stream:
                pass
    assert caught.value.code == "draining"
