"""What the page remembers over a reload, and what of it is sent: less where there is too much, and never in silence."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from playwright.async_api import expect

from tests.browser.playground import Playground, body_of, opened

if TYPE_CHECKING:
    from playwright.async_api import Page

    from tests.fakes import Stage

LARGE = 6_000_000  # characters: more than a browser stores for a tab
TOO_LONG_TO_SEND = 3_500_000
EVENT_STREAM = {"Content-Type": "text/event-stream"}

# As another version of the page would have left the first turn.
WITHOUT_VOICES = """
const key = Object.keys(sessionStorage).find((key) => key.startsWith("haystream.conversation"));
if (key) {
  const stored = JSON.parse(sessionStorage[key]);
  delete stored.turns[0].voices;
  sessionStorage[key] = JSON.stringify(stored);
}
"""
OF_ANOTHER_VERSION = """sessionStorage["haystream.conversation"] = '{"turns": [{"question": "q"}]}'"""


async def test_a_stored_turn_that_cannot_be_drawn_is_dropped(page: Page, stage: Stage) -> None:
    """The others are there, and the conversation goes on with them."""
    stage.chunks = 1
    stage.proceed.set()
    async with opened(page) as playground:
        for question in ("one", "two"):
            await _ask(playground, question)
        await page.add_init_script(WITHOUT_VOICES)
        await page.reload()
        await playground.ready()
        assert await page.locator(".question").all_inner_texts() == ["two"]
        asked = await _ask(playground, "three")
        assert [message["content"] for message in asked["messages"]] == ["two", "word ", "three"]


async def test_what_another_version_of_the_page_has_stored_is_let_go(page: Page) -> None:
    """It takes up no room, and the page begins as a new one."""
    await page.add_init_script(OF_ANOTHER_VERSION)
    async with opened(page) as playground:
        await expect(playground.turns).to_have_count(0)
        await expect(page.locator("#welcome")).to_be_visible()
        assert await page.evaluate("sessionStorage['haystream.conversation']") is None


async def test_bulky_details_are_left_out_of_what_is_stored_before_any_turn(page: Page, stage: Stage) -> None:
    """The answers are all there after a reload; the page says what is not."""
    stage.chunks = 1
    stage.proceed.set()
    async with opened(page) as playground:
        await _ask(playground, "small")
        await _answered(playground, "bulky", "the answer", outputs={"llm": {"reply": "x" * LARGE}})
        await page.reload()
        await playground.ready()
        assert await page.locator(".question").all_inner_texts() == ["small", "bulky"]
        await playground.says("the answer")
        await playground.turn.locator(".particulars > summary").click()
        words = "Outputs not kept over the reload, for want of room: llm"
        await expect(playground.turn.locator(".particulars")).to_contain_text(words)


async def test_long_documents_and_results_are_left_out_before_any_turn(page: Page) -> None:
    """The titles and the names of the tools stay."""
    document = {"id": "d1", "content": "x" * LARGE, "score": 0.5, "meta": {"title": "Bees"}, "truncated": False}
    call = {"component": "llm", "index": 1, "id": "c", "name": "look_up", "arguments_delta": "{}"}
    result = {"component": "llm", "id": "c", "name": "look_up", "result": "y" * LARGE, "is_error": False}
    found = [
        _frame("documents", {"component": "finder", "documents": [document]}),
        _frame("tool_call", call),
        _frame("tool_result", {**result, "truncated": False}),
    ]
    async with opened(page) as playground:
        await _answered(playground, "q", "the answer", *found)
        await page.reload()
        await playground.ready()
        await playground.says("the answer")
        await expect(playground.turn.locator(".documents .title")).to_have_text("Bees")
        await expect(playground.turn.locator(".call .tool")).to_contain_text("look_up")
        await expect(playground.turn.locator(".call .result")).to_contain_text("(cut)")


async def test_the_oldest_turns_of_a_chat_that_is_too_long_are_not_sent(page: Page, stage: Stage) -> None:
    """The question gets its answer, and the page says what the model was not told."""
    stage.chunks = 1
    stage.proceed.set()
    async with opened(page) as playground:
        await _answered(playground, "one", "word " * (TOO_LONG_TO_SEND // 5))
        alone = await _ask(playground, "two")
        assert (alone["query"], "messages" in alone) == ("two", False)
        asked = await _ask(playground, "three")
        assert [message["content"] for message in asked["messages"]] == ["two", "word ", "three"]
        unsent = playground.turn.locator(".unsent")
        await expect(unsent).to_have_text(
            "Too long to be sent with this question: the oldest turn of the conversation."
        )
        await expect(playground.turns.first.locator(".unsent")).to_be_hidden()


async def _ask(playground: Playground, question: str) -> dict[str, Any]:
    """Ask, wait for the end, and return what was sent."""
    before = await playground.turns.count()
    async with playground.page.expect_request("**/chat") as asked:
        await playground.ask(question)
    await expect(playground.turns).to_have_count(before + 1)
    await playground.ends("complete")
    return body_of(await asked.value)


async def _answered(
    playground: Playground, question: str, answer: str, *found: str, outputs: dict[str, Any] | None = None
) -> None:
    """Have a question answered with these words, whatever the model would say."""
    end: dict[str, Any] = {"reason": "STOP", "usage": [], "outputs": outputs or {}, "omitted_outputs": []}
    body = "".join((*found, _frame("data", answer), _frame("end", end)))
    await playground.page.route("**/chat", lambda route: route.fulfill(body=body, headers=EVENT_STREAM))
    await _ask(playground, question)
    await playground.page.unroute("**/chat")


def _frame(event: str, data: Any) -> str:
    return f"event: {event}\ndata: {json.dumps(data)}\n\n"
