"""A service that wants to know who asks: the page has a field for a token, and keeps it to itself."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from playwright.async_api import expect

from haystream_service.status import Status
from tests.browser.playground import Playground, opened, refused_page
from tests.conftest import browsed, served
from tests.scripted import Scripted, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from playwright.async_api import Browser, Page, Request

    from haystream.v1 import chat_pb2, chat_pb2_grpc
    from tests.fakes import Stage

WANTED = Status(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING", "this service wants a token")


class Guarded(Scripted):
    """Stands before a service, and lets through who has the token."""

    def __init__(self, stub: chat_pb2_grpc.ChatServiceStub) -> None:
        super().__init__()
        self._stub = stub
        self.token = "let-me-in"  # noqa: S105 - of the test's own

    async def Chat(  # type: ignore[override]  # as the service's own
        self, request: chat_pb2.ChatRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        await self._check(context)
        async for response in self._stub.Chat(request):
            await context.write(response)

    async def ListPipelines(
        self, request: chat_pb2.ListPipelinesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> chat_pb2.ListPipelinesResponse:
        await self._check(context)
        return await self._stub.ListPipelines(request)

    async def GetPipeline(
        self, request: chat_pb2.GetPipelineRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> chat_pb2.GetPipelineResponse:
        await self._check(context)
        return await self._stub.GetPipeline(request)

    async def _check(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if dict(context.invocation_metadata() or ()).get("authorization") != f"Bearer {self.token}":
            await context.abort(WANTED.code, WANTED.message, WANTED.trailers({}))


@asynccontextmanager
async def guarded(page: Page) -> AsyncGenerator[tuple[Playground, Guarded]]:
    """Open the page of a gateway to a service that is guarded."""
    async with served(default_pipeline="fake") as running:
        guard = Guarded(running.stub)
        async with scripted(guard) as address, browsed(address) as browser:
            try:
                await page.goto(browser.url)
                yield Playground(page, browser.url, running), guard
            finally:
                for each in page.context.pages:
                    await each.close()  # before the gateway, which they would otherwise miss


@pytest.fixture
async def page(chromium: Browser) -> AsyncIterator[Page]:
    """A page that may be refused something."""
    async with refused_page(chromium) as page:
        yield page


async def test_a_page_that_is_refused_asks_for_a_token_and_sends_it_with_every_call(page: Page, stage: Stage) -> None:
    """It is in no address; a reload has it still, and another tab has to be told."""
    stage.chunks = 1
    stage.proceed.set()
    async with guarded(page) as (playground, _):
        await expect(playground.state).to_have_text("this service wants a token")
        field = page.get_by_label("Token that says who you are")
        await expect(field).to_be_focused()
        calls: list[Request] = []
        page.on("request", lambda request: calls.append(request))  # noqa: PLW0108 - it marks what it is given
        await field.fill(" let-me-in\n")
        await field.press("Enter")
        await playground.ready()
        await expect(page.locator("#identity .count")).to_have_text("set")
        await playground.ask("q")
        await playground.ends("complete")
        assert {call.headers.get("authorization") for call in calls} == {"Bearer let-me-in"}
        await page.reload()
        await playground.ready()
        await playground.says("word ")
        assert not any("let-me-in" in call.url for call in calls)
        kept = await page.evaluate("[{ ...localStorage }, { ...sessionStorage }]")
        assert kept[0] == {}
        assert [name for name, value in kept[1].items() if "let-me-in" in value] == ["haystream.token"]
        other = await page.context.new_page()
        await other.goto(playground.url)
        await expect(other.locator("#state")).to_have_text("this service wants a token")
        await expect(other.locator("#token")).to_have_value("")


async def test_a_page_that_is_refused_does_not_ask_again_by_itself(page: Page) -> None:
    """Nothing has changed until somebody types a token."""
    await page.clock.install()
    async with guarded(page) as (playground, _):
        await expect(playground.state).to_have_text("this service wants a token")
        calls: list[str] = []
        page.on("request", lambda request: calls.append(request.url))
        await page.clock.run_for(60_000)
        await page.get_by_label("Token that says who you are").fill("let-me-in")
        await page.keyboard.press("Enter")
        await playground.ready()
    assert [url.removeprefix(playground.url) for url in calls] == ["/pipelines", "/pipelines/fake"]


async def test_a_question_that_is_refused_can_be_asked_again_with_another_token(page: Page, stage: Stage) -> None:
    """The one before has run out meanwhile. Taken back it is kept nowhere."""
    stage.chunks = 1
    stage.proceed.set()
    async with guarded(page) as (playground, guard):
        field = page.get_by_label("Token that says who you are")
        await field.fill("let-me-in")
        await field.press("Enter")
        await playground.ready()
        guard.token = "renewed"  # noqa: S105 - of the test's own
        await playground.ask("q")
        await expect(playground.problem).to_have_text("this service wants a token")
        await expect(field).to_be_focused()
        await field.fill("renewed")
        await playground.turn.get_by_role("button", name="Ask again").click()
        await playground.ends("complete")
        await field.fill("")
        await field.press("Enter")
        await expect(playground.state).to_have_text("this service wants a token")
        assert await page.evaluate("sessionStorage.getItem('haystream.token')") is None


async def test_a_service_that_asks_nobody_is_told_nothing(page: Page, stage: Stage) -> None:
    """Nor is there a field."""
    stage.proceed.set()
    calls: list[Request] = []
    page.on("request", lambda request: calls.append(request))  # noqa: PLW0108 - it marks what it is given
    async with opened(page) as playground:
        await playground.ask("q")
        await playground.ends("complete")
        await expect(page.locator("#identity")).to_be_hidden()
    assert not any("authorization" in call.headers for call in calls)
