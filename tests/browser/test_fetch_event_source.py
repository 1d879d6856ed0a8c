"""npm's @microsoft/fetch-event-source, as it comes: asked once, cut off, aborted, hidden and shown."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from haystream_service.run.ending import Disconnected
from tests.browser.clients import ANY_TEXT, Reader, numbered, reading, tab
from tests.browser.cutting_proxy import CuttingProxy, cutting
from tests.conftest import Served, browsed
from tests.readme import blocks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, BrowserContext, Page

    from tests.fakes import Stage

GOES_ON: dict[str, Any] = {"on_disconnect": "continue", "disconnect_grace_seconds": 10}


@dataclass(frozen=True, slots=True)
class Desk:
    """A window with two tabs: the client's, and another one that hides it."""

    reader: Reader
    other: Page
    proxy: CuttingProxy

    async def hide(self) -> None:
        """Look at the other tab."""
        await self.other.bring_to_front()
        assert await self.reader.page.evaluate("document.hidden")

    async def show(self) -> None:
        """Look at the client's tab."""
        await self.reader.page.bring_to_front()
        assert not await self.reader.page.evaluate("document.hidden")


@pytest.fixture
async def client(chromium: Browser, recital: Served) -> AsyncIterator[Reader]:
    """A tab of a gateway to the service that says questions back."""
    async with browsed(recital.address) as browser, tab(chromium, browser.url) as reader:
        yield reader


@pytest.fixture
async def desk(window: BrowserContext, recital: Served) -> AsyncIterator[Desk]:
    """A window whose front tab is a client of a gateway to the service that says questions back."""
    async with (
        browsed(recital.address) as browser,
        cutting(browser.gateway.port) as (url, proxy),
        await window.new_page() as other,
        reading(window, url) as reader,
    ):
        desk = Desk(reader, other, proxy)
        await desk.show()
        yield desk


async def test_the_readmes_snippet_shows_an_answer(client: Reader) -> None:
    """Word for word, on a page of the gateway's own address."""
    await client.page.evaluate(f"async () => {{ {blocks('js')[1]} }}")
    assert await client.page.inner_text("body") == "Why is the sky blue?"
    assert client.statuses == [200]


async def test_the_readmes_snippet_says_why_it_is_refused(client: Reader) -> None:
    """And does not try again."""
    snippet = blocks("js")[1].replace("Why is the sky blue?", " ")
    said = await client.page.evaluate(f"async () => {{ try {{ {snippet} }} catch (error) {{ return error.message }} }}")
    assert "query" in said
    assert client.statuses == [422]


async def test_an_answer_is_read_to_its_end_character_by_character(client: Reader, stage: Stage) -> None:
    """Whatever is in it; and the client does not come back."""
    await client.fetch(query=ANY_TEXT)
    await client.hears("closed")
    assert client.text == ANY_TEXT
    assert [client.frames[0].event, client.frames[-1].event] == ["metadata", "end"]
    assert client.statuses == [200]
    assert len(stage.received) == 1


async def test_an_abort_stops_the_model_within_a_second(client: Reader, recital: Served, stage: Stage) -> None:
    """An AbortController ends the request, which ends the run."""
    await client.fetch(query="some |more")
    await client.reads("some ")
    run = next(iter(recital.runs))
    async with asyncio.timeout(1):
        await client.stop()
        await stage.cancelled.wait()
    assert run.ending == Disconnected()
    await client.hears("closed")
    assert client.statuses == [200]


async def test_a_tab_that_is_closed_stops_the_model_within_a_second(
    client: Reader, recital: Served, stage: Stage
) -> None:
    """Nobody has to press anything."""
    await client.fetch(query="some |more")
    await client.reads("some ")
    run = next(iter(recital.runs))
    async with asyncio.timeout(1):
        await client.page.close()
        await stage.cancelled.wait()
    assert run.ending == Disconnected()


async def test_an_error_is_told_with_its_data_and_not_tried_again(client: Reader, stage: Stage) -> None:
    """It is the last frame of a stream that ends as others do; what came before it stays."""
    stage.error = TimeoutError()
    await client.fetch(query="some words")
    await client.hears("closed")
    assert client.text == "some words"
    assert json.loads(client.frames[-1].data)["reason"] == "PROVIDER_TIMEOUT"
    assert client.statuses == [200]
    assert len(stage.received) == 1


async def test_a_cut_connection_loses_and_doubles_no_word(chromium: Browser, recital: Served, stage: Stage) -> None:
    """The client posts again by itself, however it was cut off, and is brought to the run that it has started."""
    first, second = numbered(0, 20), numbered(20, 40)
    cuts = [CuttingProxy.close, CuttingProxy.reset, CuttingProxy.reset_unnoticed]
    async with AsyncExitStack() as stack:
        browser = await stack.enter_async_context(browsed(recital.address))
        proxies = [await stack.enter_async_context(cutting(browser.gateway.port)) for _ in cuts]
        readers = [await stack.enter_async_context(tab(chromium, url)) for url, _ in proxies]
        for number, reader in enumerate(readers):
            await reader.fetch(query=f"{first}|{second}", run_id=f"run-{number}", **GOES_ON)
        for reader in readers:
            await reader.reads(first)
        for (_, proxy), cut in zip(proxies, cuts, strict=True):
            cut(proxy)
        for reader in readers:
            await reader.hears("lost")
        stage.proceed.set()
        for reader in readers:
            await reader.hears("closed")
            assert reader.text == first + second
            assert reader.statuses == [200, 200]
    assert len(stage.received) == len(cuts)


async def test_a_cut_in_the_middle_of_a_character_loses_and_doubles_none(
    chromium: Browser, recital: Served, stage: Stage
) -> None:
    """What the client has of the frame it forgets, and gets all of it."""
    first, second = numbered(0, 20), "🙂 " + numbered(20, 40)
    async with (
        browsed(recital.address) as browser,
        cutting(browser.gateway.port) as (url, proxy),
        tab(chromium, url) as reader,
    ):
        await reader.fetch(query=f"{first}|{second}", run_id="run", **GOES_ON)
        await reader.reads(first)
        proxy.halt_inside = "🙂".encode()
        stage.proceed.set()
        await proxy.has_halted.wait()
        await reader.catches_up()
        proxy.close()
        await reader.hears("closed")
        assert reader.text == first + second
        assert reader.statuses == [200, 200]
    assert len(stage.received) == 1


async def test_a_page_that_was_hidden_reads_on_where_it_was(desk: Desk, stage: Stage) -> None:
    """The client hangs up when its page is hidden, and posts again when it is shown: to the same run."""
    first, second = numbered(0, 20), numbered(20, 40)
    await desk.reader.fetch(query=f"{first}|{second}", run_id="run", **GOES_ON)
    await desk.reader.reads(first)
    await desk.hide()
    stage.proceed.set()
    await desk.show()
    await desk.reader.hears("closed")
    assert desk.reader.text == first + second
    assert desk.reader.statuses == [200, 200]
    assert len(stage.received) == 1


async def test_a_page_that_is_hidden_before_the_first_word_starts_no_second_run(desk: Desk, stage: Stage) -> None:
    """Without an id of a frame the client posts as it did at first; the run is known by its own."""
    desk.proxy.is_open.clear()
    await desk.reader.fetch(query="all of |it", run_id="run", **GOES_ON)
    await stage.waiting.wait()
    await desk.hide()
    desk.proxy.is_open.set()
    await desk.show()
    stage.proceed.set()
    await desk.reader.hears("closed")
    assert desk.reader.text == "all of it"
    assert desk.reader.statuses == [200]
    assert len(stage.received) == 1


async def test_a_page_that_stays_open_when_hidden_reads_on(desk: Desk, stage: Stage) -> None:
    """With openWhenHidden the client keeps its connection, whoever looks."""
    first, second, third = numbered(0, 20), numbered(20, 40), numbered(40, 60)
    await desk.reader.fetch(query=f"{first}|{second}|{third}", open_when_hidden=True)
    await desk.reader.reads(first)
    await desk.hide()
    stage.proceed.set()
    await desk.reader.hears("closed")
    await desk.show()
    assert desk.reader.text == first + second + third
    assert desk.reader.statuses == [200]
    assert len(stage.received) == 1


async def test_a_page_that_was_hidden_finds_its_run_stopped_if_it_asked_for_nothing_else(
    desk: Desk, recital: Served, stage: Stage
) -> None:
    """By default who hangs up stops the model. Who comes back then is told so, and no second run begins."""
    await desk.reader.fetch(query="some |more")
    await desk.reader.reads("some ")
    run = next(iter(recital.runs))
    await desk.hide()
    async with asyncio.timeout(1):
        await stage.cancelled.wait()
    assert run.ending == Disconnected()
    await desk.show()
    refused = await desk.reader.hears("refused")
    assert json.loads(refused.data)["code"] == "NOT_FOUND"
    assert desk.reader.text == "some "
    assert desk.reader.statuses == [200, 404]
    assert len(stage.received) == 1
