"""Answers that outlive the page's connection, and the page itself: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import structlog
from playwright.async_api import expect

from haystream_gateway import server as gateway_server
from haystream_gateway.settings import Settings as GatewaySettings
from tests.browser.clients import numbered
from tests.browser.conftest import RECITAL
from tests.browser.cutting_proxy import CuttingProxy, cutting
from tests.browser.playground import Playground, body_of, opened, refused_page
from tests.conftest import FAKES, browsed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Browser, Page, Route

    from tests.conftest import Served
    from tests.fakes import Stage

FIRST, SECOND = numbered(0, 30), numbered(30, 60)
QUESTION = f"{FIRST}|{SECOND}"

# As where a page dies at once: it saves nothing on its way out.
DIES_SILENTLY = """
for (const [target, name] of [[window, "pagehide"], [document, "visibilitychange"]])
  target.addEventListener(name, (event) => event.stopImmediatePropagation(), true);
"""

# As where the network takes its time, for as long as the page is there.
HOLDS_THE_QUESTION = """() => {
    const send = window.fetch;
    window.fetch = (address, options) => {
        if (address !== 'chat') return send(address, options);
        window.asked = options.body;
        return new Promise(() => {});
    };
}"""
JSON = {"Content-Type": "application/json"}

# Keeps what the state line says, however short the time that it says it.
NOTES_STATES = """() => {
    const state = document.querySelector('#state');
    window.states = [];
    new MutationObserver(() => window.states.push(state.textContent)).observe(state, { childList: true });
}"""
CAME_BACK = """times => states.filter((words, index) =>
    words === 'answering' && states[index - 1]?.startsWith('connection lost, trying again')).length === times"""


@pytest.fixture
async def page(chromium: Browser) -> AsyncIterator[Page]:
    """A page that may be refused something."""
    async with refused_page(chromium) as page:
        yield page


async def test_a_reload_in_the_middle_goes_on_from_where_it_was(page: Page, stage: Stage) -> None:
    """Earlier turns, the pipeline and the half of an answer are there; the rest comes."""
    async with opened(page, RECITAL, "recital") as playground:
        await playground.ask("earlier")
        await playground.ends("complete")
        await playground.ask(QUESTION)
        await playground.says(FIRST)
        async with page.expect_request("**/runs/*/events?after=*") as again:
            await page.reload()
        assert "after=0" not in (await again.value).url
        await expect(playground.turns).to_have_count(2)
        await playground.says(FIRST)
        stage.proceed.set()
        await playground.ends("complete")
        await playground.says(FIRST + SECOND)
        assert await playground.turns.first.locator(".text").inner_text() == "earlier"
        assert len(stage.received) == 2  # no question was asked twice


async def test_a_page_that_dies_without_saving_reads_its_answer_from_the_beginning(page: Page, stage: Stage) -> None:
    """What was saved when the question was asked is enough."""
    await page.add_init_script(DIES_SILENTLY)
    async with opened(page, RECITAL, "recital") as playground:
        await playground.ask(QUESTION)
        await playground.says(FIRST)
        async with page.expect_request("**/runs/*/events?after=0*"):
            await page.reload()
        await playground.says(FIRST)
        stage.proceed.set()
        await playground.ends("complete")
        await playground.says(FIRST + SECOND)


async def test_a_conversation_that_is_over_is_shown_again_as_it_was(page: Page, stage: Stage) -> None:
    """With its figures, its tools and its documents, and without asking for any of it."""
    stage.chunks = 2
    stage.proceed.set()
    async with opened(page, FAKES, "agent") as playground:
        await playground.ask("q")
        await playground.ends("complete")
        await playground.choose("finder")
        await playground.ask("r")
        await expect(playground.turns).to_have_count(2)
        await playground.ends("complete")
        before = await page.inner_html("#turns")
        await page.reload()
        await playground.ready()
        assert _without_openings(await page.inner_html("#turns")) == _without_openings(before)
        await expect(page.get_by_role("radio", name="finder", exact=True)).to_be_checked()


async def test_a_run_that_is_gone_is_said_to_be(page: Page, stage: Stage) -> None:
    """Its half stays on the page, and can be asked again."""
    stage.chunks, stage.more = 2, 1
    async with opened(page) as playground:
        await playground.ask("q")
        await playground.says("word word ")
        await page.route("**/runs/*/events*", lambda route: route.continue_(url=f"{playground.url}/runs/other/events"))
        await page.reload()
        await expect(playground.problem).to_contain_text("The rest of this answer is lost")
        await playground.says("word word ")
        stage.proceed.set()
        await playground.turn.get_by_role("button", name="Ask again").click()
        await playground.ends("complete")
        await playground.says("word word word ")
        await expect(playground.turns).to_have_count(1)


async def test_a_reload_before_the_question_has_arrived_waits_for_it(page: Page, stage: Stage) -> None:
    """The page may be back before the request that it sent on its way out."""
    stage.chunks = 2
    stage.proceed.set()
    attached: list[str] = []
    asked: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def late(route: Route) -> None:
        attached.append(route.request.url)
        if len(attached) > 1:
            await page.request.post(f"{playground.url}/chat", data=await asked, headers=JSON)
        await route.continue_()

    await page.route("**/runs/*/events*", late)
    async with opened(page) as playground:
        asked.set_result(await _ask_and_reload_at_once(playground))
        await playground.ends("complete")
        await playground.says("word word ")
        assert (len(attached), len(stage.received)) == (2, 1)


async def test_a_question_that_never_arrived_is_said_to_be_lost(page: Page, stage: Stage) -> None:
    """After one more look; the page does not claim to know why. It can be asked again."""
    stage.chunks = 2
    stage.proceed.set()
    attached: list[str] = []
    page.on("request", lambda request: attached.append(request.url) if "/runs/" in request.url else None)
    async with opened(page) as playground:
        await _ask_and_reload_at_once(playground)
        await expect(playground.problem).to_contain_text("its question did not arrive, or its run was stopped")
        assert len(attached) == 2
        await playground.turn.get_by_role("button", name="Ask again").click()
        await playground.ends("complete")


async def test_a_cut_connection_is_told_and_loses_and_doubles_no_word(
    page: Page, recital: Served, stage: Stage
) -> None:
    """The page comes back to its run by itself."""
    async with browsed(recital.address) as browser, cutting(browser.gateway.port) as (url, proxy):
        playground = Playground(page, url, recital)
        await page.goto(url)
        await playground.ready()
        await playground.ask(QUESTION)
        await playground.says(FIRST)
        await page.evaluate(NOTES_STATES)
        for cuts, cut in enumerate((CuttingProxy.close, CuttingProxy.reset)):
            cut(proxy)
            await page.wait_for_function(CAME_BACK, arg=cuts + 1)
        stage.proceed.set()
        await playground.ends("complete")
        await playground.says(FIRST + SECOND)
        await playground.ready()
        assert len(stage.received) == 1
        await page.close()


async def test_a_gateway_that_shuts_down_is_waited_for(page: Page, recital: Served, stage: Stage) -> None:
    """Its last frame says that more may come; the run is read on from the gateway that takes its place."""
    async with browsed(recital.address) as browser:
        playground = Playground(page, browser.url, recital)
        await page.goto(browser.url)
        await playground.ready()
        await playground.ask(QUESTION)
        await playground.says(FIRST)
        await page.evaluate(NOTES_STATES)
        port = browser.gateway.port
    settings = GatewaySettings(gateway_listen=f"127.0.0.1:{port}", target=recital.address)
    async with gateway_server.serving(settings, structlog.get_logger()):
        await page.wait_for_function(CAME_BACK, arg=1)
        stage.proceed.set()
        await playground.ends("complete")
        await playground.says(FIRST + SECOND)
        await page.close()


async def test_the_key_is_sent_and_never_stored(page: Page, tmp_path: Path, stage: Stage) -> None:
    """A reload forgets it."""
    stage.proceed.set()
    (tmp_path / "keyed.py").write_text(
        "from tests.pipelines import fake\ndef build(api_key=None):\n    return fake.build()\n"
    )
    async with opened(page, tmp_path, "keyed") as playground:
        await page.click("#key > summary")
        await page.fill("#api-key", "sk-secret")
        async with page.expect_request("**/chat") as asked:
            await playground.ask("q")
        assert body_of(await asked.value)["api_key"] == "sk-secret"
        await playground.ends("complete")
        await page.reload()
        await playground.ready()
        assert await page.input_value("#api-key") == ""
        assert "sk-secret" not in await page.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}])")


async def _ask_and_reload_at_once(playground: Playground) -> str:
    """Reload before the question is on its way; return the body of its request."""
    await playground.page.evaluate(HOLDS_THE_QUESTION)
    await playground.ask("q")
    asked: str = await (await playground.page.wait_for_function("window.asked")).json_value()
    await playground.page.reload()
    return asked


def _without_openings(html: str) -> str:
    return html.replace(' open=""', "")
