"""The browser's own EventSource, as it comes: asked once, cut off, come back, and done."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from haystream_service.run.ending import Disconnected
from tests.browser.clients import ANY_TEXT, numbered, tab
from tests.browser.cutting_proxy import CuttingProxy, cutting
from tests.conftest import Served, browsed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

    from tests.browser.clients import Reader
    from tests.fakes import Stage


@pytest.fixture
async def source(chromium: Browser, recital: Served) -> AsyncIterator[Reader]:
    """A tab of a gateway to the service that says questions back."""
    async with browsed(recital.address) as browser, tab(chromium, browser.url) as reader:
        yield reader


async def test_an_answer_is_read_to_its_end_character_by_character(source: Reader) -> None:
    """Whatever is in it; and the client is done with it."""
    await source.listen(query=ANY_TEXT)
    end = await source.hears("frame", "end")
    assert source.text == ANY_TEXT
    assert [source.frames[0].event, json.loads(end.data)["reason"]] == ["metadata", "STOP"]
    assert source.statuses == [200]


async def test_a_cut_connection_loses_and_doubles_no_word(chromium: Browser, recital: Served, stage: Stage) -> None:
    """The source comes back by itself, however it was cut off, to the run that it has started."""
    first, second = numbered(0, 20), numbered(20, 40)
    cuts = [CuttingProxy.close, CuttingProxy.reset, CuttingProxy.reset_unnoticed]
    async with AsyncExitStack() as stack:
        browser = await stack.enter_async_context(browsed(recital.address))
        proxies = [await stack.enter_async_context(cutting(browser.gateway.port)) for _ in cuts]
        readers = [await stack.enter_async_context(tab(chromium, url)) for url, _ in proxies]
        for reader in readers:
            await reader.listen(query=f"{first}|{second}")
        for reader in readers:
            await reader.reads(first)
        for (_, proxy), cut in zip(proxies, cuts, strict=True):
            cut(proxy)
        for reader in readers:
            await reader.hears("lost")
        stage.proceed.set()
        for reader in readers:
            await reader.hears("frame", "end")
            assert reader.text == first + second
            assert reader.statuses == [200, 200]
    assert len(stage.received) == len(cuts)


async def test_a_cut_in_the_middle_of_a_character_loses_and_doubles_none(
    chromium: Browser, recital: Served, stage: Stage
) -> None:
    """The source forgets what it has of the frame, and asks for all of it."""
    first, second = numbered(0, 20), "🙂 " + numbered(20, 40)
    async with (
        browsed(recital.address) as browser,
        cutting(browser.gateway.port) as (url, proxy),
        tab(chromium, url) as reader,
    ):
        await reader.listen(query=f"{first}|{second}")
        await reader.reads(first)
        proxy.halt_inside = "🙂".encode()
        stage.proceed.set()
        await proxy.has_halted.wait()
        await reader.catches_up()
        proxy.close()
        await reader.hears("frame", "end")
        assert reader.text == first + second
        assert reader.statuses == [200, 200]
    assert len(stage.received) == 1


async def test_a_cut_before_the_first_frame_starts_no_second_run(
    chromium: Browser, recital: Served, stage: Stage
) -> None:
    """The source has no id of a frame to come back with; its run is known by the id that it was asked with."""
    async with (
        browsed(recital.address) as browser,
        cutting(browser.gateway.port) as (url, proxy),
        tab(chromium, url) as reader,
    ):
        proxy.halt_inside = b"event: metadata"
        await reader.listen(query="all of |it", run_id="run")
        await proxy.has_halted.wait()
        await reader.catches_up()
        proxy.close()
        stage.proceed.set()
        await reader.hears("frame", "end")
        assert reader.text == "all of it"
        assert reader.statuses == [200, 200]
    assert len(stage.received) == 1


async def test_a_source_that_is_not_closed_stays_away_after_the_end(source: Reader, stage: Stage) -> None:
    """It comes back, as it does from every stream that ends, and is told that there is nothing more: no second run."""
    await source.listen(query="once", close_at_end=False)
    await source.hears("closed")
    assert [frame.event for frame in source.frames] == ["metadata", "data", "end"]
    assert source.statuses == [200, 204]
    assert stage.received == [{"query": "once"}]


async def test_an_error_is_told_with_its_data_and_not_tried_again(source: Reader, stage: Stage) -> None:
    """It comes to the handler that also gets the browser's own errors; a run that has failed is not asked for twice."""
    stage.error = TimeoutError()
    await source.listen(query="some words")
    error = await source.hears("frame", "error")
    assert source.text == "some words"
    assert json.loads(error.data)["reason"] == "PROVIDER_TIMEOUT"
    await source.hears("closed")
    assert [frame.event for frame in source.frames].count("error") == 1
    assert source.statuses == [200, 204]
    assert len(stage.received) == 1


async def test_a_source_that_is_closed_stops_the_model_when_its_grace_is_over(
    chromium: Browser, recital: Served, stage: Stage
) -> None:
    """A connection that is closed looks like one that was cut, so the run waits a little for its reader."""
    grace_seconds = 0.3
    loop = asyncio.get_running_loop()
    async with (
        browsed(recital.address, gateway_reconnect_seconds=grace_seconds) as browser,
        tab(chromium, browser.url) as reader,
    ):
        await reader.listen(query="some |more")
        await reader.reads("some ")
        run = next(iter(recital.runs))
        before = loop.time()
        await reader.stop()
        async with asyncio.timeout(grace_seconds + 1):
            await stage.cancelled.wait()
        assert loop.time() - before >= grace_seconds
        assert run.ending == Disconnected()
        assert reader.text == "some "
