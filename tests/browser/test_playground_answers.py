"""What the page shows of an answer: reasoning, tools, documents, voices, gaps, and the graph that they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.async_api import expect

from tests.browser.playground import opened
from tests.conftest import FAKES, SHIPPED

if TYPE_CHECKING:
    from playwright.async_api import Page

    from tests.fakes import Stage

WITH_A_GAP = """id: r:1
event: metadata
data: {"run_id":"r","pipeline":"fake"}

event: component
data: {"component":"llm","index":0}

id: r:9
event: gap
data: {"from_seq":2,"to_seq":9}

id: r:10
event: data
data: "the rest"

id: r:11
event: end
data: {"reason":"LENGTH","usage":[],"outputs":{},"omitted_outputs":["llm"]}

"""

WITH_SCORES = """event: documents
data: {"component":"finder","documents":[
data: {"id":"d1","content":"one","score":"NaN","meta":{},"truncated":false},
data: {"id":"d2","content":"two","score":"Infinity","meta":{},"truncated":false},
data: {"id":"d3","content":"three","score":null,"meta":{},"truncated":false},
data: {"id":"d4","content":"four","score":0.5,"meta":{},"truncated":false}]}

event: data
data: "the answer"

event: end
data: {"reason":"STOP","usage":[],"outputs":{},"omitted_outputs":[]}

"""


async def test_reasoning_tools_and_text_come_in_order(page: Page, stage: Stage) -> None:
    """The reasoning folds when the model goes on, and can be opened again."""
    stage.chunks = 2
    async with opened(page, FAKES, "agent") as playground:
        await playground.ask("q")
        await playground.says("word word ")
        parts = playground.turn.locator(".voice > :not(.speaker)")
        assert await parts.evaluate_all("parts => parts.map(part => part.className)") == ["reasoning", "call", "text"]
        reasoning, call = playground.turn.locator(".reasoning"), playground.turn.locator(".call")
        assert await reasoning.get_attribute("open") is None
        await reasoning.locator("summary").click()
        await expect(reasoning.locator("p")).to_have_text("Hm.")
        assert "weather" in await call.locator(".tool").inner_text()
        assert (await call.locator(".arguments").inner_text()).split() == ["city", "Rome"]
        await expect(call.locator(".result")).to_have_text("result Sunny in Rome")
        stage.proceed.set()
        await playground.ends("complete")
        assert await reasoning.get_attribute("open") is not None  # the reader has decided
        await playground.turn.locator(".particulars > summary").click()
        assert await playground.turn.locator("tbody td").all_inner_texts() == ["agent", "m", "5", "2", "7"]
        await playground.turn.get_by_text("Outputs", exact=True).click()
        await expect(playground.turn.get_by_role("group", name="Outputs")).to_contain_text('"exit_reason"')


async def test_a_tool_that_fails_is_shown_to_have_failed(page: Page) -> None:
    """In the tool's words."""
    async with opened(page, SHIPPED, "agent") as playground:
        await playground.ask("What is 1 / 0?")
        await playground.ends("complete")
        await expect(playground.turn.locator(".call.failed .result")).to_contain_text("has no value")


async def test_documents_come_with_their_scores_before_the_text(page: Page, stage: Stage) -> None:
    """Each unfolds to the whole of its text and to what is known of it."""
    async with opened(page, FAKES, "finder") as playground:
        await playground.ask("a question")
        documents = playground.turn.locator(".documents li")
        await expect(documents).to_have_count(2)
        assert await playground.text.count() == 0
        assert (await documents.first.locator("summary").inner_text()).split("\n")[0] == "d1"
        await expect(documents.first.locator(".score")).to_have_text("score 0.50")
        await documents.first.locator("summary").click()
        await expect(documents.first.locator(".content")).to_have_text("a question")
        assert (await documents.first.locator(".meta").inner_text()).split() == ["id", "d1", "page", "1"]
        stage.proceed.set()
        await playground.ends("complete")


async def test_a_score_that_is_no_number_is_not_shown(page: Page) -> None:
    """The document is, and the answer comes to its end."""
    headers = {"Content-Type": "text/event-stream"}
    frames = WITH_SCORES.replace('\ndata: {"id', '{"id')  # one line, as the gateway writes it
    await page.route("**/chat", lambda route: route.fulfill(body=frames, headers=headers))
    async with opened(page) as playground:
        await playground.ask("q")
        await playground.ends("complete")
        await playground.says("the answer")
        assert await playground.turn.locator(".documents .title").all_inner_texts() == ["d1", "d2", "d3", "d4"]
        await expect(playground.turn.locator(".score")).to_have_text("score 0.50")
        await page.reload()
        await playground.ready()
        await expect(playground.turn.locator(".documents li")).to_have_count(4)


async def test_voices_are_told_apart_and_named(page: Page, stage: Stage) -> None:
    """Where several components speak; one alone needs no name."""
    stage.chunks, stage.more = 2, 1
    async with opened(page, FAKES, "pair") as playground:
        await playground.ask("q")
        await expect(playground.turn.locator(".voice")).to_have_count(2)
        stage.proceed.set()
        await playground.ends("complete")
        voices = playground.turn.locator(".voice")
        assert sorted(await voices.locator(".speaker").all_inner_texts()) == ["first", "second"]
        assert await voices.locator(".text").all_text_contents() == ["word word word "] * 2
        await playground.choose("fake")
        await playground.ask("q")
        await expect(playground.turns).to_have_count(2)
        await playground.ends("complete")
        await expect(playground.turn.locator(".speaker")).to_be_hidden()


async def test_a_gap_and_a_cut_answer_are_said_to_be_such(page: Page) -> None:
    """What replay no longer holds is not passed over, nor is what has been left out."""
    headers = {"Content-Type": "text/event-stream"}
    await page.route("**/chat", lambda route: route.fulfill(body=WITH_A_GAP, headers=headers))
    async with opened(page) as playground:
        await playground.ask("q")
        await playground.ends("cut at the token limit")
        await expect(playground.turn.locator(".gap")).to_contain_text("missing")
        await playground.says("the rest")
        await playground.turn.locator(".particulars > summary").click()
        await expect(playground.turn.locator(".particulars")).to_contain_text("too large to send: llm")


async def test_the_graph_shows_components_and_connections_and_who_is_at_work(page: Page, stage: Stage) -> None:
    """It is read to those who do not see it."""
    stage.chunks = 1
    async with opened(page, FAKES, "finder") as playground:
        graph = page.get_by_role("img", name="finder, a Finder; prompt, a PromptBuilder; llm, a AsyncFake")
        await expect(graph).to_be_visible()
        assert await graph.locator(".node .name").all_text_contents() == ["finder", "prompt", "llm"]
        heights = [box["y"] for node in await graph.locator(".node").all() if (box := await node.bounding_box())]
        assert heights == sorted(heights)
        assert await graph.locator(".arrow").count() == 2
        await playground.ask("q")
        await playground.says("word ")
        await expect(graph.locator(".at-work .name")).to_have_text("llm")
        stage.proceed.set()
        await playground.ends("complete")
        await expect(graph.locator(".at-work")).to_have_count(0)


async def test_graphs_with_long_arrows_and_loops_are_drawn(page: Page) -> None:
    """No node lies on another, whatever leads where."""
    async with opened(page):
        drawn = await page.evaluate(
            """async () => {
                const { Graph } = await import('./graph.js');
                const names = ['a', 'b', 'c', 'd', 'e'];
                const nodes = names.map((name) => `  ${name}["${name} (Kind (odd) "x")"]`);
                const arrows = ['a --> b', 'b --> c', 'c --> d', 'a --> d', 'd --> b', 'e --> e', 'a --> c'];
                const graph = new Graph(['flowchart TD', ...nodes, ...arrows.map((arrow) => `  ${arrow}`)].join('\\n'));
                document.getElementById('graph').replaceChildren(graph.element);
                const boxes = [...graph.element.querySelectorAll('rect')].map((rect) => rect.getBoundingClientRect());
                const isOver = (one, other) => one.left < other.right && other.left < one.right
                    && one.top < other.bottom && other.top < one.bottom;
                return {
                    nodes: boxes.length,
                    arrows: graph.element.querySelectorAll('.arrow').length,
                    overlaps: boxes.filter((one, i) => boxes.some((other, j) => i !== j && isOver(one, other))).length,
                };
            }"""
        )
        assert drawn == {"nodes": 5, "arrows": 7, "overlaps": 0}
