"""What goes wrong, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from tests.browser.playground import body_of, opened, refused_page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Browser, Page

    from tests.fakes import Stage


BRIEF = """
from tests.pipelines import fake

HAYSTREAM = {"inputs": {"llm.query": {"maxLength": 3}}}


def build():
    return fake.build()
"""

FIGURES_WITH_A_DEFECT = """
export function figuresOf({ ending }) {
  if (ending) throw new Error("a defect");
  return {};
}
"""


@pytest.fixture
async def page(chromium: Browser) -> AsyncIterator[Page]:
    """A page that may be refused something."""
    async with refused_page(chromium) as page:
        yield page


async def test_an_error_is_said_in_words(page: Page, stage: Stage) -> None:
    """What came before it stays on the page."""
    stage.chunks, stage.error = 2, TimeoutError()
    stage.proceed.set()
    async with opened(page) as playground:
        await playground.ask("q")
        await expect(playground.problem).to_have_text("the model's provider did not answer in time")
        await expect(page.locator("#announcer")).to_have_text("the model's provider did not answer in time")
        await playground.ends("failed")
        await playground.says("word word ")
        await playground.ready()


async def test_a_refusal_is_said_in_words_and_is_no_part_of_the_chat(page: Page, tmp_path: Path, stage: Stage) -> None:
    """The model is told nothing of a question that it never had."""
    stage.chunks = 1
    stage.proceed.set()
    (tmp_path / "brief.py").write_text(BRIEF)
    async with opened(page, tmp_path, "brief") as playground:
        await playground.ask("far too long")
        await expect(playground.problem).to_have_text("query: the limit of query here is maxLength: 3")
        async with page.expect_request("**/chat") as asked:
            await playground.ask("why")
        await expect(playground.turns).to_have_count(2)
        await playground.ends("complete")
        assert "messages" not in body_of(await asked.value)
        assert [received["query"] for received in stage.received] == ["why"]


async def test_a_gateway_that_is_gone_is_tried_again_and_then_given_up(page: Page, stage: Stage) -> None:
    """The page says so at every step, and the question can be asked again."""
    stage.proceed.set()
    await page.clock.install()
    async with opened(page) as playground:
        await page.route("**/chat", lambda route: route.abort())
        await playground.ask("q")
        for attempt in range(1, 6):
            await expect(playground.state).to_have_text(f"connection lost, trying again ({attempt} of 5)")
            await page.clock.run_for(6000)
        await expect(playground.problem).to_have_text("The gateway cannot be reached.")
        await page.unroute("**/chat")
        await playground.turn.get_by_role("button", name="Ask again").click()
        await playground.ends("complete")
        await expect(playground.turns).to_have_count(1)


async def test_an_answer_that_is_no_problem_document_is_told_by_its_status(page: Page) -> None:
    """A proxy in between may answer with a page of its own."""
    async with opened(page) as playground:
        await page.route("**/chat", lambda route: route.fulfill(status=413, body="<html>too much</html>"))
        await playground.ask("q")
        await expect(playground.problem).to_have_text("The gateway answered with status 413.")


async def test_a_run_that_somebody_else_cancels_is_over(page: Page, stage: Stage) -> None:
    """The page says what became of it, and does not come back for more."""
    stage.chunks = 1
    async with opened(page) as playground:
        async with page.expect_request("**/chat") as asked:
            await playground.ask("q")
        await playground.says("word ")
        run_id = body_of(await asked.value)["run_id"]
        await page.request.post(f"{playground.url}/runs/{run_id}/cancel")
        await expect(playground.problem).to_contain_text("cancelled")
        await playground.ready()


async def test_a_defect_in_drawing_an_answer_does_not_keep_the_next_from_being_asked(
    chromium: Browser, stage: Stage
) -> None:
    """The page is ready again, now and after a reload, and leaves out only what it cannot draw."""
    stage.chunks = 1
    async with await chromium.new_context() as context:
        page = await context.new_page()
        await page.route(
            "**/figures.js", lambda route: route.fulfill(body=FIGURES_WITH_A_DEFECT, content_type="text/javascript")
        )
        async with opened(page) as playground:
            await playground.ask("q")
            await playground.says("word ")
            async with page.expect_event("pageerror") as complaint:
                stage.proceed.set()
            assert "a defect" in str(await complaint.value)
            await playground.ready()
            await expect(page.locator("#send")).to_be_visible()
            await expect(page.locator("#announcer")).to_have_text("Answer: word")
            await page.reload()
            await playground.ready()
            await expect(playground.turns).to_have_count(0)
            await playground.ask("r")
            await playground.says("word ")
