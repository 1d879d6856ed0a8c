"""The panel: pipelines that can be chosen, and forms made from their schemas."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from tests.browser.playground import body_of, opened, refused_page
from tests.conftest import FAKES, ROOT, SHIPPED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Browser, Page

    from tests.fakes import Stage

KINDS = """
from tests.pipelines import fake

HAYSTREAM = {
    "inputs": {
        "llm.top_k": {"minimum": 1, "maximum": 9},
        "llm.generation_kwargs": {"properties": {"n": {"maximum": 2}}},
    }
}


def build():
    return fake.build()
"""

NAMES_OF_ALL_KINDS = """
from haystack import Pipeline

from tests.fakes import AsyncFake


def build():
    pipeline = Pipeline()
    for name in ("größe", "gräße", "a b"):
        pipeline.add_component(name, AsyncFake())
    return pipeline
"""


@pytest.fixture
async def page(chromium: Browser) -> AsyncIterator[Page]:
    """A page that may be refused something."""
    async with refused_page(chromium) as page:
        yield page


async def test_only_what_is_set_in_the_form_is_sent(page: Page, stage: Stage) -> None:
    """With the type that the pipeline takes."""
    stage.proceed.set()
    async with opened(page) as playground:
        async with page.expect_request("**/chat") as plain:
            await playground.ask("q")
        assert {"inputs", "generation_kwargs", "api_key"}.isdisjoint(body_of(await plain.value))
        await playground.ends("complete")
        await page.click("#inputs > summary")
        assert await page.get_by_label("top_k").get_attribute("placeholder") == "3"
        await page.get_by_label("top_k").fill("5")
        await page.click("#generation > summary")
        await page.get_by_label("Temperature").fill("0.5")
        await page.get_by_label("Most tokens").fill("7")
        await expect(page.locator("#inputs .count")).to_have_text("1 set")
        await expect(page.locator("#generation .count")).to_have_text("2 set")
        await playground.ask("r")
        await expect(playground.turns).to_have_count(2)
        await playground.ends("complete")
    assert stage.received == [
        {"query": "q", "generation_kwargs": None, "top_k": 3},
        {"query": "r", "generation_kwargs": {"temperature": 0.5, "max_tokens": 7}, "top_k": 5},
    ]


async def test_what_is_typed_wrong_is_said_at_its_field_and_not_sent(page: Page, tmp_path: Path, stage: Stage) -> None:
    """The question stays where it was, and the reader is taken to the field."""
    stage.proceed.set()
    (tmp_path / "kinds.py").write_text(KINDS)
    async with opened(page, tmp_path, "kinds") as playground:
        await page.click("#inputs > summary")
        top_k, settings = page.get_by_label("top_k"), page.get_by_label("generation_kwargs")
        for field, typed, words in (
            (top_k, "several", "Expected a whole number"),
            (top_k, "1.5", "Expected a whole number"),
            (top_k, "0", "Expected at least 1."),
            (top_k, "10", "Expected at most 9."),
            (settings, "{", "Expected a JSON object"),
            (settings, "[1]", "Expected a JSON object"),
        ):
            await field.fill(typed)
            await playground.ask("q")
            await expect(field).to_be_focused()
            assert await field.get_attribute("aria-invalid") == "true"
            described = await field.get_attribute("aria-describedby")
            assert described is not None
            await expect(page.locator(f"#{described.split()[-1]}")).to_contain_text(words)
            await field.fill("")
        assert await page.input_value("#query") == "q"
        assert stage.received == []
        await page.press("#query", "Enter")
        await playground.ends("complete")


async def test_what_the_service_finds_wrong_is_said_at_its_field(page: Page, tmp_path: Path, stage: Stage) -> None:
    """And with the answer that did not begin, which can be asked again."""
    stage.proceed.set()
    (tmp_path / "kinds.py").write_text(KINDS)
    async with opened(page, tmp_path, "kinds") as playground:
        await page.click("#inputs > summary")
        field = page.get_by_label("generation_kwargs")
        await field.fill('{"n": 3}')
        await playground.ask("q")
        await expect(field).to_be_focused()
        complaint = "the limit of generation_kwargs.n here is maximum: 2"
        await expect(page.locator(".complaint").filter(has_text=complaint)).to_be_visible()
        await expect(playground.problem).to_contain_text(complaint)
        await field.fill('{"n": 2}')
        await playground.turn.get_by_role("button", name="Ask again").click()
        await playground.ends("complete")
        await expect(playground.turns).to_have_count(1)
        assert stage.received[0]["generation_kwargs"] == {"n": 2}


async def test_a_required_input_is_asked_for(page: Page) -> None:
    """The shipped `memory` needs the id of a conversation, and remembers by it."""
    async with opened(page, SHIPPED, "memory") as playground:
        field = page.get_by_label("id required")
        await expect(field).to_be_visible()
        await playground.ask("Hello.")
        await expect(field).to_be_focused()
        await expect(playground.turns).to_have_count(0)
        await field.fill("mine")
        async with page.expect_request("**/chat") as asked:
            await page.press("#query", "Enter")
        assert body_of(await asked.value)["inputs"] == {"conversation": {"id": "mine"}}
        await page.press("#query", "Escape")
        await playground.ends("stopped")


async def test_forms_are_kept_for_each_pipeline_and_over_a_reload(page: Page) -> None:
    """Until the tab is closed."""
    async with opened(page) as playground:
        await page.click("#inputs > summary")
        await page.get_by_label("top_k").fill("5")
        await playground.choose("finder")
        await playground.choose("fake")
        await page.reload()
        await playground.ready()
        await page.click("#inputs > summary")
        assert await page.get_by_label("top_k").input_value() == "5"


async def test_every_kind_of_schema_has_its_field_and_its_values(page: Page) -> None:
    """From the schema that a service may send to the values that a request has."""
    async with opened(page):
        values = await page.evaluate(
            """async () => {
                const { fieldsOf, valueOf } = await import('./schema.js');
                const one = (schema) => fieldsOf({ properties: { c: { properties: { s: schema } } } })[0];
                const orNull = (schema) => ({ anyOf: [schema, { type: 'null' }] });
                return [
                    [{ type: 'string' }, '12'],
                    [orNull({ type: 'integer' }), ' 12 '],
                    [{ type: 'number' }, '0,5'],
                    [orNull({ type: 'boolean' }), 'false'],
                    [{ enum: ['a', 1] }, '1'],
                    [orNull({ enum: ['a', 'b'] }), 'b'],
                    [{ type: 'array', items: { type: 'string' } }, '["x"]'],
                    [orNull({ type: 'object' }), '{"x": 1}'],
                    [{}, 'plain words'],
                    [{}, '{"x": 1}'],
                    [{ anyOf: [{ type: 'string' }, { type: 'object' }] }, 'either'],
                    [{ type: 'string' }, '  '],
                ].map(([schema, typed]) => [one(schema).kind, valueOf(one(schema), typed) ?? null]);
            }"""
        )
        assert values == [
            ["string", "12"],
            ["integer", 12],
            ["number", 0.5],
            ["boolean", False],
            ["choice", 1],
            ["choice", "b"],
            ["array", ["x"]],
            ["object", {"x": 1}],
            ["any", "plain words"],
            ["any", {"x": 1}],
            ["any", "either"],
            ["string", None],
        ]


async def test_a_pipeline_that_failed_to_load_says_why(page: Page, tmp_path: Path) -> None:
    """It cannot be chosen; one that is mended can, without a reload of the page."""
    shutil.copy(FAKES / "fake.py", tmp_path)
    shutil.copy(ROOT / "tests" / "broken_pipelines" / "nothing.py", tmp_path)
    async with opened(page, tmp_path):
        radio = page.get_by_role("radio", name="nothing", exact=True)
        await expect(radio).to_be_disabled()
        row = page.locator(".pipeline", has=radio)
        await expect(row.locator(".error")).to_be_visible()
        assert "build" in await row.locator(".error").inner_text()
        await expect(radio).to_have_accessible_description(await row.locator(".words").inner_text())


async def test_names_with_blanks_and_umlauts_are_told_apart(page: Page, tmp_path: Path) -> None:
    """Each control has its own label, and each pipeline its own name and description."""
    (tmp_path / "my own.py").write_text(f'"""What it is for."""{NAMES_OF_ALL_KINDS}')
    async with opened(page, tmp_path, "my own"):
        radio = page.get_by_role("radio")
        await expect(radio).to_have_accessible_name("my own")
        await expect(radio).to_have_accessible_description("What it is for.")
        await page.click("#inputs > summary")
        for name in ("größe", "gräße", "a b"):
            group = page.get_by_role("group", name=name, exact=True)
            await group.get_by_label("top_k").fill(name)
            await expect(group.get_by_label("top_k")).to_have_value(name)
        ids = await page.evaluate("[...document.querySelectorAll('[id]')].map(({ id }) => id)")
        assert len(ids) == len(set(ids))
        assert not any(re.search(r"\s", each) for each in ids)


async def test_escape_in_a_field_of_the_form_leaves_the_answer_alone(page: Page, stage: Stage) -> None:
    """There it means the field; anywhere else it stops the answer."""
    stage.chunks = 1
    async with opened(page) as playground:
        await page.click("#inputs > summary")
        await playground.ask("q")
        await playground.says("word ")
        await page.press("#inputs input", "Escape")
        stage.proceed.set()
        await playground.ends("complete")


async def test_escape_on_the_page_stops_the_answer(page: Page, stage: Stage) -> None:
    """Also where nothing has the focus."""
    stage.chunks = 1
    async with opened(page) as playground:
        await playground.ask("q")
        await playground.says("word ")
        await page.evaluate("document.activeElement.blur()")
        await page.keyboard.press("Escape")
        await playground.ends("stopped")
