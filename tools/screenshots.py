"""Takes the pictures of the playground in docs/, of a short conversation with the shipped pipelines."""

from __future__ import annotations

import asyncio
import shutil
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import structlog
from playwright.async_api import async_playwright, expect

from haystream_gateway import server as gateway_server
from haystream_gateway.settings import Settings as GatewaySettings
from haystream_service import server as service_server
from haystream_service.settings import Settings as ServiceSettings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from playwright.async_api import Browser, Page

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"]
ANSWER_MILLISECONDS = 60_000

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

# Which pipeline is asked what: tools, then documents, each with its figures.
CONVERSATION = (
    ("agent", "What is 12 * (7 - 2) ** 2?"),
    ("rag", "How many flowers does a honey bee visit on one trip?"),
)


@dataclass(frozen=True, slots=True)
class Screen:
    """A size that people look at the page in."""

    name: str
    width: int
    height: int
    is_phone: bool


# The phone first: it shows less of the time that the model takes for its first answer.
SCREENS = (Screen("phone", 390, 844, is_phone=True), Screen("desktop", 1280, 900, is_phone=False))


async def main() -> None:
    """Write a picture for each screen and scheme."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("screenshots: Chromium is missing; `apt-get install chromium` brings it")
    PICTURES.mkdir(exist_ok=True)
    async with gateway() as url, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for screen in SCREENS:
            page = await opened(browser, screen, url)
            await converse(page, screen)
            for scheme in SCHEMES:
                await page.emulate_media(color_scheme=scheme)
                await page.screenshot(path=PICTURES / f"playground-{screen.name}-{scheme}.png")
            await page.context.close()
        await browser.close()


@asynccontextmanager
async def gateway() -> AsyncGenerator[str]:
    """Serve the shipped pipelines on free ports of this machine; yield the page's address."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))
    log = structlog.get_logger()
    settings = ServiceSettings(listen="127.0.0.1:0", pipelines=ROOT / "pipelines", drain_seconds=1)
    async with service_server.serving(settings, log) as service:
        await service.loaded.wait()
        target = f"127.0.0.1:{service.port}"
        async with gateway_server.serving(GatewaySettings(gateway_listen="127.0.0.1:0", target=target), log) as served:
            yield f"http://127.0.0.1:{served.port}/"


async def opened(browser: Browser, screen: Screen, url: str) -> Page:
    """Open the page on a screen."""
    context = await browser.new_context(
        viewport={"width": screen.width, "height": screen.height},
        device_scale_factor=2 if screen.is_phone else 1.4,
        has_touch=screen.is_phone,
        is_mobile=screen.is_phone,
    )
    page = await context.new_page()
    await page.goto(url)
    await expect(page.locator("#state")).to_have_text("ready")
    return page


async def converse(page: Page, screen: Screen) -> None:
    """Ask all that is to be seen. At this temperature the answers are the same each time."""
    for pipeline, question in CONVERSATION:
        if screen.is_phone:
            await page.click("#open-panel")
        await page.get_by_role("radio", name=pipeline, exact=True).check()
        await expect(page.locator("#chosen")).to_have_text(pipeline)
        if not await page.get_by_label("Temperature").is_visible():
            await page.click("#generation > summary")
        await page.get_by_label("Temperature").fill("0")
        await page.click("#generation > summary")
        if screen.is_phone:
            await page.click("#close-panel")
        await page.fill("#query", question)
        await page.press("#query", "Enter")
        await expect(page.locator(".turn").last.locator(".ending")).to_have_text(
            "complete", timeout=ANSWER_MILLISECONDS
        )


if __name__ == "__main__":
    asyncio.run(main())
