"""The page at `/`, as a person sees it and uses it."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from playwright.async_api import expect

from tests.conftest import FAKES, Served, browsed, served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from playwright.async_api import Browser, ConsoleMessage, Locator, Page, Request

OVER = re.compile(".+")  # an ending, whichever
REAL_MODEL_MILLISECONDS = 60_000

# What the browser itself says of every answer that is no success.
REFUSED = "Failed to load resource"


@dataclass(frozen=True, slots=True)
class Playground:
    """The page, with names for what is on it."""

    page: Page
    url: str
    service: Served

    @property
    def state(self) -> Locator:
        """How things stand, in words."""
        return self.page.locator("#state")

    @property
    def turns(self) -> Locator:
        """The questions with their answers."""
        return self.page.locator(".turn")

    @property
    def turn(self) -> Locator:
        """The newest of them."""
        return self.turns.last

    @property
    def text(self) -> Locator:
        """The text of the newest answer."""
        return self.turn.locator(".text")

    @property
    def ending(self) -> Locator:
        """How the newest answer has ended."""
        return self.turn.locator(".ending")

    @property
    def problem(self) -> Locator:
        """What went wrong with the newest answer."""
        return self.turn.locator(".problem p")

    async def choose(self, pipeline: str) -> None:
        """Choose a pipeline, and wait until its form and graph are there."""
        async with self.page.expect_response(f"**/pipelines/{pipeline}"):
            await self.page.get_by_role("radio", name=pipeline, exact=True).check()
        await expect(self.page.locator("#welcome-name")).to_have_text(pipeline)

    async def ask(self, question: str) -> None:
        """Type a question and press Enter."""
        await self.page.fill("#query", question)
        await self.page.press("#query", "Enter")

    async def ends(self, ending: str | re.Pattern[str] = OVER) -> None:
        """Wait for the end of the newest answer."""
        await expect(self.ending).to_have_text(ending, timeout=REAL_MODEL_MILLISECONDS)

    async def answer(self) -> str:
        """Return the newest answer as it stands, to the last blank."""
        return "".join(await self.text.all_text_contents())

    async def says(self, text: str) -> None:
        """Wait until the newest answer is this, to the last blank."""
        same = (
            "text => [...document.querySelectorAll('.turn:last-child .text')].map(e => e.textContent).join('') === text"
        )
        await self.page.wait_for_function(same, arg=text)

    async def ready(self) -> None:
        """Wait until the pipelines are listed and nothing goes on."""
        await expect(self.state).to_have_text("ready")


@asynccontextmanager
async def opened(
    page: Page, pipelines: Path = FAKES, default_pipeline: str = "fake", **settings: Any
) -> AsyncGenerator[Playground]:
    """Open the page of a gateway to a service of its own."""
    async with (
        served(pipelines, default_pipeline=default_pipeline, **settings) as running,
        browsed(running.address) as browser,
    ):
        try:
            await page.goto(browser.url)
            playground = Playground(page, browser.url, running)
            await playground.ready()
            yield playground
        finally:
            await page.close()  # before the gateway, which it would otherwise miss


def body_of(request: Request) -> dict[str, Any]:
    """Return what a request of the page asks."""
    body: dict[str, Any] = json.loads(request.post_data or "{}")
    return body


@asynccontextmanager
async def refused_page(chromium: Browser) -> AsyncGenerator[Page]:
    """Yield a page that must not complain of anything but what it was refused, which the browser tells by itself."""
    context = await chromium.new_context()
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if _is_complaint(message) else None)
    yield page
    await context.close()
    assert complaints == []


def _is_complaint(message: ConsoleMessage) -> bool:
    return message.type == "error" and not message.text.startswith(REFUSED)
