"""Twenty tabs at once, with both clients."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from tests.browser.clients import Reader, numbered, reading
from tests.conftest import Served, browsed

if TYPE_CHECKING:
    from playwright.async_api import Browser

    from tests.fakes import Stage

TABS = 20
PER_HOST = 6  # connections that a browser opens to a host with HTTP/1.1, for all tabs of a profile together
PER_WINDOW = 5


def first_words(number: int) -> str:
    """Return what only the tab of a number hears, at first."""
    return numbered(1000 * number, 1000 * number + 10)


def all_words(number: int) -> str:
    """Return all that only the tab of a number hears."""
    return numbered(1000 * number, 1000 * number + 20)


async def ask(number: int, reader: Reader) -> None:
    """Ask with either client in turn for words of the tab's own, with a wait in their middle."""
    first = first_words(number)
    query = f"{first}|{all_words(number).removeprefix(first)}"
    if number % 2:
        await reader.listen(query=query)
    else:
        await reader.fetch(query=query)


async def test_twenty_tabs_hear_their_own_answers_at_the_same_time(
    chromium: Browser, recital: Served, stage: Stage
) -> None:
    """All of them are in the middle of one when the models go on. They need four profiles: see below."""
    async with AsyncExitStack() as stack:
        browser = await stack.enter_async_context(browsed(recital.address))
        contexts = [await stack.enter_async_context(await chromium.new_context()) for _ in range(TABS // PER_WINDOW)]
        readers = [
            await stack.enter_async_context(reading(context, browser.url))
            for context in contexts
            for _ in range(PER_WINDOW)
        ]
        for number, reader in enumerate(readers):
            await ask(number, reader)
        for number, reader in enumerate(readers):
            await reader.reads(first_words(number))
        assert len(recital.runs) == len(browser.gateway.streams) == TABS
        stage.proceed.set()
        for number, reader in enumerate(readers):
            await reader.hears("frame", "end")
            assert reader.text == all_words(number)
            assert reader.statuses == [200]
    assert len(stage.received) == TABS


async def test_twenty_tabs_of_one_window_hear_their_answers_one_after_the_other(
    chromium: Browser, recital: Served, stage: Stage
) -> None:
    """The browser lets six of them speak to a host at a time: the others wait, and none goes without."""
    async with AsyncExitStack() as stack:
        browser = await stack.enter_async_context(browsed(recital.address))
        context = await stack.enter_async_context(await chromium.new_context())
        readers = [await stack.enter_async_context(reading(context, browser.url)) for _ in range(TABS)]
        for number, reader in enumerate(readers):
            await ask(number, reader)
        begun = asyncio.as_completed([reader.hears("frame", "data") for reader in readers])
        for _ in range(PER_HOST):
            await next(begun)
        assert len(stage.received) == len(browser.gateway.streams) == PER_HOST
        stage.proceed.set()
        for others in begun:
            await others
        for number, reader in enumerate(readers):
            await reader.hears("frame", "end")
            assert reader.text == all_words(number)
            assert reader.statuses == [200]
    assert len(stage.received) == TABS
