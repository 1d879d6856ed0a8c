"""The page at `/`, used as a person would: asking, reading, stopping."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from playwright.async_api import expect

from haystream_service.run.ending import Cancelled
from tests.browser.conftest import RECITAL
from tests.browser.playground import Playground, body_of, opened
from tests.conftest import FAKES, SHIPPED, browsed, served
from tests.readme import blocks

if TYPE_CHECKING:
    from playwright.async_api import Page, Request, Route

    from tests.fakes import Stage

LONGER_THAN = "length => document.querySelector('.turn .text')?.textContent.length > length"


async def test_an_answer_grows_before_the_end_and_can_be_stopped(page: Page) -> None:
    """A person sees words come, has read enough, and the model stops."""
    async with opened(page, SHIPPED, "local") as playground:
        await playground.ask("Tell me a very long story about a dragon, a knight and a princess.")
        await page.wait_for_function(LONGER_THAN, arg=0)
        early = await playground.answer()
        run = next(iter(playground.service.runs))
        await page.wait_for_function(LONGER_THAN, arg=len(early))
        assert (await playground.answer()).startswith(early)
        assert await playground.turn.locator("article").get_attribute("aria-busy") == "true"
        assert re.fullmatch(r"≈ \d+", await playground.turn.locator(".tokens").inner_text())
        await page.click("#stop")
        async with asyncio.timeout(5):
            await playground.service.runs.drain(grace_seconds=5)
        assert run.ending == Cancelled()
        await playground.ends("stopped")
        await expect(page.locator("#send")).to_be_visible()
        await expect(page.locator("#query")).to_be_focused()


async def test_an_answer_comes_to_its_end_with_the_providers_own_count(page: Page) -> None:
    """The figures of the end replace the estimates, and the details have the usage."""
    async with opened(page, SHIPPED, "local") as playground:
        await playground.ask("Why is the sky blue?")
        await playground.ends(re.compile("complete|cut at the token limit"))
        assert await playground.answer() != ""
        figures = playground.turn.locator(".figures")
        assert (await figures.locator(".tokens").inner_text()).isdecimal()
        assert re.fullmatch(r"\d+ tokens/s", await figures.locator(".speed").inner_text())
        assert re.fullmatch(r"\d+ ms", await figures.locator(".first").inner_text())
        await figures.locator("summary").first.click()
        cells = await figures.locator("tbody td").all_inner_texts()
        assert cells[:2] == ["llm", "SmolLM2-135M-Instruct"]
        assert cells[3] == await figures.locator(".tokens").inner_text()


async def test_a_pipeline_can_be_chosen_and_any_text_is_shown_as_text(page: Page) -> None:
    """What a model says is never taken for markup."""
    async with opened(page, SHIPPED, "local") as playground:
        await playground.choose("echo")
        assert "word by word" in await page.inner_text("#description")
        await playground.ask("<b>bold</b> <img src=x onerror=alert(1)> 漢字 🙂")
        await playground.ends("complete")
        assert await playground.answer() == "<b>bold</b> <img src=x onerror=alert(1)> 漢字 🙂"
        assert await playground.turn.locator(".question").inner_text() == await playground.answer()
        assert await playground.turn.locator("b, img").count() == 0


async def test_asking_before_the_pipelines_are_listed_works(page: Page) -> None:
    """A page that is still waiting for the list asks the default one."""
    proceed = asyncio.Event()

    async def late(route: Route) -> None:
        await proceed.wait()
        await route.continue_()

    async with served(SHIPPED, default_pipeline="echo") as running, browsed(running.address) as browser:
        await page.route("**/pipelines", late)
        await page.goto(browser.url)
        playground = Playground(page, browser.url, running)
        await playground.ask("early bird")
        await playground.says("early bird")
        await expect(playground.turn.locator(".answerer")).to_have_text("echo")
        proceed.set()
        await playground.ready()
        await expect(page.locator("#chosen")).to_have_text("echo")


async def test_a_conversation_goes_on_and_a_new_one_begins(page: Page, stage: Stage) -> None:
    """The model is told all that was said before, until the reader begins anew."""
    stage.chunks = 1
    stage.proceed.set()
    sent: list[dict[str, Any]] = []

    def note(request: Request) -> None:
        if request.url.endswith("/chat"):
            sent.append(body_of(request))

    page.on("request", note)
    async with opened(page) as playground:
        for number, question in enumerate(("one", "two", "three")):
            await playground.ask(question)
            await expect(playground.turns).to_have_count(number + 1)
            await playground.ends("complete")
        assert [received["query"] for received in stage.received] == ["one", "two", "three"]
        assert (sent[0]["query"], "messages" in sent[0]) == ("one", False)
        assert [(message["role"], message["content"]) for message in sent[2]["messages"]] == [
            ("user", "one"),
            ("assistant", "word "),
            ("user", "two"),
            ("assistant", "word "),
            ("user", "three"),
        ]
        assert await page.locator(".question").all_inner_texts() == ["one", "two", "three"]
        await page.get_by_role("button", name="New conversation").click()
        await expect(playground.turns).to_have_count(0)
        await expect(page.locator("#query")).to_be_focused()
        await playground.ask("four")
        await playground.ends("complete")
        assert (sent[3]["query"], "messages" in sent[3]) == ("four", False)


async def test_a_new_conversation_stops_the_answer_of_the_old_one(page: Page, stage: Stage) -> None:
    """Nobody would see it."""
    stage.chunks = 1
    async with opened(page) as playground:
        await playground.ask("q")
        await playground.says("word ")
        await page.get_by_role("button", name="New conversation").click()
        async with asyncio.timeout(5):
            await stage.cancelled.wait()
        await playground.ready()
        await expect(page.locator("#welcome")).to_be_visible()


async def test_a_page_that_is_closed_stops_the_model_after_its_grace(page: Page, stage: Stage) -> None:
    """Nobody has to press anything. The grace is ten seconds, which this test does not wait for."""
    asked: list[dict[str, Any]] = []

    async def impatient(route: Route) -> None:
        body = body_of(route.request)
        asked.append(body)
        await route.continue_(post_data={**body, "disconnect_grace_seconds": 0.1})

    stage.chunks = 1
    await page.route("**/chat", impatient)
    async with opened(page) as playground:
        await playground.ask("q")
        await stage.waiting.wait()
        await page.close()
        async with asyncio.timeout(5):
            await stage.cancelled.wait()
        assert (asked[0]["on_disconnect"], asked[0]["disconnect_grace_seconds"]) == ("continue", 10)


async def test_all_is_done_by_keyboard(page: Page, stage: Stage) -> None:
    """Choosing, asking, stopping; and the way back from the panel is short."""
    stage.chunks = 1
    async with opened(page) as playground:
        await expect(page.locator("#query")).to_be_focused()
        await page.keyboard.type("two")
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("lines")
        await page.keyboard.press("Enter")
        await playground.says("word ")
        assert stage.received[0]["query"] == "two\nlines"
        await page.keyboard.press("Escape")
        await playground.ends("stopped")
        async with asyncio.timeout(5):
            await stage.cancelled.wait()
        await page.locator("#new").focus()
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("radio", name="fake", exact=True)).to_be_focused()
        await page.keyboard.press("ArrowUp")
        await expect(page.locator("#chosen")).to_have_text("failing_second")
        await page.keyboard.press("Tab")
        await expect(page.locator("#about > summary")).to_be_focused()
        await page.locator(".skip").focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("#query")).to_be_focused()


async def test_every_control_has_a_name_and_shows_its_focus(page: Page, stage: Stage) -> None:
    """Going through the page with the tab key."""
    stage.chunks = 1
    stage.proceed.set()
    async with opened(page, FAKES, "agent") as playground:
        await playground.ask("q")
        await playground.ends("complete")
        for details in await page.locator("details").all():
            await details.evaluate("details => { details.open = true; }")
        names = await page.evaluate(
            """() => [...document.querySelectorAll('input, select, textarea, button')].map(
                (control) => control.labels?.[0]?.textContent || control.textContent || control.ariaLabel)"""
        )
        assert all(name.strip() for name in names)
        await page.locator(".skip").focus()
        for _ in range(12):
            await page.keyboard.press("Tab")
            assert await page.evaluate(
                """() => [document.activeElement, document.activeElement.closest('label, #ask')].some(
                    (element) => element && getComputedStyle(element).outlineStyle !== 'none'
                        || element?.id === 'ask' && getComputedStyle(element).boxShadow !== 'none')"""
            )


async def test_an_answer_is_read_out_once_and_not_piece_by_piece(page: Page, stage: Stage) -> None:
    """The growing text is in no live region; what is whole is."""
    stage.chunks, stage.more = 2, 1
    async with opened(page) as playground:
        await playground.ask("q")
        await playground.says("word word ")
        assert await page.locator("#announcer").inner_text() == ""
        assert await playground.text.locator("xpath=ancestor::*[@aria-live or @role='log']").count() == 0
        stage.proceed.set()
        await expect(page.locator("#announcer")).to_have_text("Answer: word word word")


async def test_the_newest_text_is_kept_in_view_only_for_who_reads_there(page: Page, stage: Stage) -> None:
    """Who has scrolled up stays there, and finds the way back."""
    lines = "".join(f"{number}\n\n" for number in range(60))
    at_bottom = "() => document.documentElement.scrollHeight - innerHeight - scrollY < 2"
    async with opened(page, RECITAL, "recital") as playground:
        await playground.ask(f"{lines}|{lines}|{lines}".replace("\n\n", " \n\n"))
        await stage.waiting.wait()
        await page.wait_for_function(at_bottom)
        assert await page.evaluate("scrollY") > 500
        await page.mouse.move(700, 300)
        await page.mouse.wheel(0, -400)
        await expect(page.locator("#newest")).to_be_visible()
        before = await page.evaluate("scrollY")
        stage.proceed.set()
        await playground.ends("complete")
        assert await page.evaluate("scrollY") == before
        await page.click("#newest")
        await page.wait_for_function(at_bottom)
        await expect(page.locator("#newest")).to_be_hidden()


async def test_the_readmes_snippet_shows_an_answer(page: Page) -> None:
    """A bare EventSource on a page of the gateway's own address."""
    async with opened(page, SHIPPED, "local"):
        before = await page.inner_text("body")
        await page.evaluate(blocks("js")[0].replace("const source", "window.source"))
        await page.wait_for_function("() => window.source.readyState === EventSource.CLOSED", timeout=30_000)
        assert len(await page.inner_text("body")) > len(before) + 20
