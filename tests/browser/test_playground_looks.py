"""How the page looks: by day, by night, on a phone, and to those whom motion disturbs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from tests.browser.playground import opened
from tests.conftest import FAKES, SHIPPED

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

    from tests.fakes import Stage

LEAST_CONTRAST = 4.5  # WCAG 2.2, 1.4.3

# Colours as the browser paints them, whatever they are written as.
CONTRAST = """element => {
    const brush = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const painted = (...colours) => {
        for (const colour of colours) { brush.fillStyle = colour; brush.fillRect(0, 0, 1, 1); }
        return [...brush.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const light = (colour) => colour.map((part) => part / 255)
        .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
    const grounds = [];
    for (let each = element; each; each = each.parentElement) grounds.unshift(getComputedStyle(each).backgroundColor);
    const both = [painted(...grounds), painted(getComputedStyle(element).color)];
    const [dark, bright] = both.map(light).sort((one, other) => one - other);
    return (bright + 0.05) / (dark + 0.05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_all_text_can_be_read_by_day_and_by_night(page: Page, stage: Stage, scheme: str) -> None:
    """The colours follow the reader's choice, and stand out from what is behind them."""
    stage.chunks, stage.error = 2, TimeoutError()
    stage.proceed.set()
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    async with opened(page, FAKES, "finder") as playground:
        await playground.ask("q")
        await playground.ends("failed")
        ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = [int(part) for part in re.findall(r"\d+", ground)]
        assert all(part < 40 if scheme == "dark" else part > 220 for part in brightness)
        for name in (
            ".question",
            ".text",
            ".problem p",
            ".figures dt",
            ".score",
            ".excerpt",
            ".pipeline .name",
            "#state",
        ):
            assert await _contrast(page.locator(name).first) >= LEAST_CONTRAST, name
        for name in ("#send", "#facts", ".answerer", "summary .note"):
            assert await _contrast(page.locator(name).first) >= LEAST_CONTRAST, name


async def test_a_phone_shows_all_without_scrolling_sideways(page: Page, stage: Stage) -> None:
    """Long words, documents, two voices and the panel included."""
    stage.chunks, stage.text = 1, "Donaudampfschifffahrtsgesellschaft" * 5
    stage.proceed.set()
    await page.set_viewport_size({"width": 360, "height": 740})
    async with opened(page) as playground:
        for turns, name in enumerate(("finder", "pair", "agent"), start=1):
            await page.click("#open-panel")
            await expect(page.locator("#query")).to_be_hidden()
            await playground.choose(name)
            for details in await page.locator("#panel details").all():
                await details.evaluate("details => { details.open = true; }")
            assert await _fits(page)
            await page.keyboard.press("Escape")
            await expect(page.locator("#open-panel")).to_be_focused()
            await playground.ask("x" * 200)
            await expect(playground.turns).to_have_count(turns)
            await playground.ends("complete")
            await playground.turn.locator(".particulars > summary").click()
            assert await _fits(page)
        await expect(page.locator("#query")).to_be_visible()


async def test_the_panel_leaves_a_phones_reader_where_they_were(page: Page, stage: Stage) -> None:
    """In the middle of what was said before."""
    stage.text, stage.chunks = "line\n" * 100, 1
    stage.proceed.set()
    await page.set_viewport_size({"width": 360, "height": 740})
    async with opened(page) as playground:
        await playground.ask("q")
        await playground.ends("complete")
        await page.evaluate("scrollTo(0, 700)")
        await page.click("#open-panel")
        assert await page.evaluate("scrollY") == 0
        await page.get_by_role("button", name="Back to the conversation").click()
        assert await page.evaluate("scrollY") == 700


async def test_a_wide_screen_shows_the_panel_beside_the_conversation(page: Page) -> None:
    """There is nothing to open, and nothing to close."""
    async with opened(page, SHIPPED, "echo"):
        await expect(page.locator("#pipelines")).to_be_visible()
        await expect(page.locator("#query")).to_be_visible()
        await expect(page.locator("#open-panel")).to_be_hidden()
        await expect(page.locator("#close-panel")).to_be_hidden()


async def test_nothing_moves_for_those_who_asked_for_that(page: Page, stage: Stage) -> None:
    """Neither the dot nor the cursor."""
    stage.chunks = 1
    async with opened(page) as playground:
        await playground.ask("q")
        await playground.says("word ")
        moving = "() => document.getAnimations().length"
        assert await page.evaluate(moving) > 0
        await page.emulate_media(reduced_motion="reduce")
        assert await page.evaluate(moving) == 0


async def _contrast(element: Locator) -> float:
    contrast: float = await element.evaluate(CONTRAST)
    return contrast


async def _fits(page: Page) -> bool:
    fits: bool = await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    return fits
