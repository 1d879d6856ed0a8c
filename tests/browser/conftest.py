"""A real Chromium. Where there is none these tests are left out, as the head of the report says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import async_playwright

from tests.conftest import CHROMIUM, Served, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, BrowserContext, Page

    from tests.fakes import Stage

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

RECITAL = Path(__file__).parent / "pipelines"

collect_ignore_glob = [] if CHROMIUM else ["test_*.py"]


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    """A headless Chromium for the tests of a module."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture(scope="module")
async def window(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrowserContext]:
    """A window in which, as in people's browsers, a tab hides those behind it.

    Playwright tells each page that it launches that it is being looked at. It leaves a browser of somebody else's as it
    is, if asked to, so this one is.
    """
    assert CHROMIUM is not None
    profile = tmp_path_factory.mktemp("profile")
    own = ["--headless", "--no-startup-window", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
    process = await asyncio.create_subprocess_exec(CHROMIUM, *ARGUMENTS, *own, stderr=asyncio.subprocess.PIPE)
    try:
        async with async_playwright() as playwright:
            address = await _debugging_address(process)
            browser = await playwright.chromium.connect_over_cdp(address, no_defaults=True)
            yield browser.contexts[0]
            await browser.close()
    finally:
        process.terminate()
        await process.communicate()


@pytest.fixture
async def recital(stage: Stage) -> AsyncIterator[Served]:
    """A service that says questions back."""
    async with served(RECITAL, default_pipeline="recital") as running:
        yield running


@pytest.fixture
async def page(chromium: Browser) -> AsyncIterator[Page]:
    """A page of its own, which must not complain on its console."""
    context = await chromium.new_context()
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    yield page
    await context.close()
    assert complaints == []


async def _debugging_address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async for line in process.stderr:
        _, found, address = line.decode().strip().partition("DevTools listening on ")
        if found:
            return address
    raise AssertionError("Chromium has ended")
