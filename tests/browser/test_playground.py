"""The page at `/`, used as a person would."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from playwright.async_api import expect

from haystream_service.run.ending import Disconnected
from tests.conftest import SHIPPED, Served, browsed, served
from tests.readme import blocks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from playwright.async_api import Page, Route

    from tests.fakes import Stage

LONGER_THAN = "length => document.querySelector('#answer').textContent.length > length"


@asynccontextmanager
async def opened(page: Page, pipelines: Path, default_pipeline: str) -> AsyncGenerator[Served]:
    """Open the page of a gateway to a service of its own."""
    async with served(pipelines, default_pipeline=default_pipeline) as running, browsed(running.address) as browser:
        await page.goto(browser.url)
        await expect(page.locator("#state")).to_have_text("ready")
        yield running


async def answer_of(page: Page) -> str:
    """Return the answer as it stands."""
    return await page.inner_text("#answer")


async def test_an_answer_grows_before_the_end_and_can_be_stopped(page: Page) -> None:
    """A person sees words come, has read enough, and the model stops."""
    async with opened(page, SHIPPED, "local") as running:
        await page.fill("#query", "Tell me a very long story about a dragon, a knight and a princess.")
        await page.click("#send")
        await page.wait_for_function(LONGER_THAN, arg=0)
        early = await answer_of(page)
        run = next(iter(running.runs))
        await page.wait_for_function(LONGER_THAN, arg=len(early))
        later = await answer_of(page)
        assert await page.get_attribute("#answer", "aria-busy") == "true"
        assert later.startswith(early.rstrip())
        await page.click("#stop")
        async with asyncio.timeout(5):
            await running.runs.drain(grace_seconds=5)
        assert run.ending == Disconnected()
        assert await page.inner_text("#ending") == "stopped"
        assert await page.is_enabled("#send")


async def test_an_answer_comes_to_its_end_with_the_providers_own_count(page: Page) -> None:
    """Enter asks, and the figures of the end replace the estimates."""
    async with opened(page, SHIPPED, "local"):
        await page.fill("#query", "Why is the sky blue?")
        await page.press("#query", "Enter")
        await expect(page.locator("#ending")).to_have_text(re.compile("stop|length"), timeout=60_000)
        assert await answer_of(page) != ""
        assert (await page.inner_text("#tokens")).isdecimal()
        assert re.fullmatch(r"\d+ tokens/s", await page.inner_text("#speed"))
        assert (await page.inner_text("#first-word")).endswith(" ms")


async def test_a_pipeline_can_be_chosen_and_any_text_is_shown_as_text(page: Page) -> None:
    """What a model says is never taken for markup."""
    async with opened(page, SHIPPED, "local"):
        await page.select_option("#pipeline", "echo")
        assert "word by word" in await page.inner_text("#description")
        await page.fill("#query", "<b>bold</b> <img src=x onerror=alert(1)> 漢字 🙂")
        await page.click("#send")
        await expect(page.locator("#ending")).to_have_text("stop", timeout=30_000)
        assert await answer_of(page) == "<b>bold</b> <img src=x onerror=alert(1)> 漢字 🙂"


async def test_asking_before_the_pipelines_are_listed_works(page: Page) -> None:
    """A page that is still waiting for the list asks the default one."""
    proceed = asyncio.Event()

    async def late(route: Route) -> None:
        await proceed.wait()
        await route.continue_()

    async with served(SHIPPED, default_pipeline="echo") as running, browsed(running.address) as browser:
        await page.route("**/pipelines", late)
        await page.goto(browser.url)
        await page.fill("#query", "early bird")
        await page.click("#send")
        await expect(page.locator("#answer")).to_have_text("early bird")
        proceed.set()
        await expect(page.locator("#state")).to_have_text("ready")


async def test_an_error_is_said_in_words(page: Page, tmp_path: Path, stage: Stage) -> None:
    """What came before it stays on the page."""
    (tmp_path / "fake.py").write_text("from tests.pipelines.fake import build\n")
    stage.chunks, stage.error = 2, TimeoutError()
    stage.proceed.set()
    async with opened(page, tmp_path, "fake"):
        await page.fill("#query", "q")
        await page.click("#send")
        await expect(page.locator("#problem")).to_have_text("the model's provider did not answer in time")
        assert "word word" in await answer_of(page)


async def test_a_page_that_is_closed_stops_the_model(page: Page, tmp_path: Path, stage: Stage) -> None:
    """Nobody has to press anything."""
    (tmp_path / "fake.py").write_text("from tests.pipelines.fake import build\n")
    stage.chunks = 1
    async with opened(page, tmp_path, "fake"):
        await page.fill("#query", "q")
        await page.click("#send")
        await stage.waiting.wait()
        await page.close()
        async with asyncio.timeout(5):
            await stage.cancelled.wait()


async def test_the_readmes_snippet_shows_an_answer(page: Page) -> None:
    """A bare EventSource on a page of the gateway's own address."""
    async with opened(page, SHIPPED, "local"):
        before = await page.inner_text("body")
        await page.evaluate(blocks("js")[0].replace("const source", "window.source"))
        await page.wait_for_function("() => window.source.readyState === EventSource.CLOSED", timeout=30_000)
        assert len(await page.inner_text("body")) > len(before) + 20
