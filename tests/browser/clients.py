"""Pages with the browsers' two clients of server-sent events, which tell the test what they hear."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from playwright.async_api import Browser, BrowserContext, Page, Response, Route

FOLDER = Path(__file__).parent
PATIENCE_SECONDS = 30

PAGE = (
    '<!doctype html><title>reader</title><link rel="icon" href="data:,"><script type="module" src="reader.js"></script>'
)

ANY_TEXT = "lines\nand\r\nmore\rof them, 漢字 🙂 \u2028\u2029\x00\x85 \\ data: x\n\nid: y\n\n"


def numbered(first: int, last: int) -> str:
    """Return words that can be told apart."""
    return "".join(f"{number} " for number in range(first, last))


@dataclass(frozen=True, slots=True)
class Notice:
    """What a client has told: `open`, `frame`, `lost` (it will try again), `closed` or `refused` (it will not)."""

    kind: str
    event: str = ""
    id: str = ""
    data: str = ""


class Reader:
    """A page with a client."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.notices: list[Notice] = []
        self.statuses: list[int] = []
        self._news = asyncio.Event()

    async def listen(self, *, close_at_end: bool = True, **query: str) -> None:
        """Ask with an EventSource."""
        address = f"/chat?{urlencode(query)}"
        await self.page.evaluate("([...given]) => listen(...given)", [address, {"closeAtEnd": close_at_end}])

    async def fetch(self, *, open_when_hidden: bool = False, **body: Any) -> None:
        """Ask with fetch-event-source."""
        await self.page.evaluate("([...given]) => fetchEvents(...given)", [body, {"openWhenHidden": open_when_hidden}])

    async def stop(self) -> None:
        """Close the EventSource, or abort the fetch."""
        await self.page.evaluate("() => stop()")

    @property
    def frames(self) -> list[Notice]:
        """The frames that came."""
        return [notice for notice in self.notices if notice.kind == "frame"]

    @property
    def text(self) -> str:
        """The text that came, joined as a page would."""
        return "".join(json.loads(frame.data) for frame in self.frames if frame.event == "data")

    async def reads(self, text: str) -> None:
        """Wait until a text has come, and nothing else."""
        await self.until(lambda: len(self.text) >= len(text))
        assert self.text == text

    async def hears(self, kind: str, event: str = "") -> Notice:
        """Wait for a notice, and return it."""

        def heard() -> list[Notice]:
            return [notice for notice in self.notices if (notice.kind, notice.event) == (kind, event)]

        await self.until(lambda: bool(heard()))
        return heard()[-1]

    async def catches_up(self) -> None:
        """Wait until the page has read what was sent to it, by way of an answer that was sent after that."""
        await self.page.evaluate("async () => (await fetch('/livez')).text()")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what has come makes something true."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not condition():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pytest.fail(f"the page has told no more than {self.notices}, with answers of {self.statuses}")

    def note(self, _: object, notice: dict[str, str]) -> None:
        """Take a notice from the page."""
        self.notices.append(Notice(**notice))
        self._news.set()

    def note_response(self, response: Response) -> None:
        """Take the status of an answer to the page's client."""
        if urlsplit(response.url).path == "/chat":
            self.statuses.append(response.status)
            self._news.set()


@asynccontextmanager
async def reading(context: BrowserContext, url: str) -> AsyncGenerator[Reader]:
    """Open a tab with a client on the gateway's own origin."""
    page = await context.new_page()
    reader = Reader(page)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("response", reader.note_response)
    await page.expose_binding("tell", reader.note)  # pyright: ignore[reportUnknownMemberType] - a bare Callable
    await page.route(f"{url}/clients/**", _serve)
    await page.goto(f"{url}/clients/")
    await page.unroute_all()  # from here on nothing stands between the client and the network
    try:
        yield reader
    finally:
        await page.close()
    assert complaints == []


@asynccontextmanager
async def tab(chromium: Browser, url: str) -> AsyncGenerator[Reader]:
    """Open a tab in a window of its own, which shares no connection with others."""
    async with await chromium.new_context() as context, reading(context, url) as reader:
        yield reader


async def _serve(route: Route) -> None:
    path = urlsplit(route.request.url).path.removeprefix("/clients/")
    if not path:
        await route.fulfill(body=PAGE, content_type="text/html")
    else:
        file = FOLDER / path if (FOLDER / path).is_file() else FOLDER / f"{path}.js"  # as bundlers resolve imports
        await route.fulfill(body=file.read_text(), content_type="text/javascript")
