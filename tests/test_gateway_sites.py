"""Which pages may ask, and what a connection may send before it has asked anything."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from haystream_gateway.connections import MAX_HEAD_BYTES, STEP_BYTES, BoundedHeads
from haystream_gateway.settings import Settings
from tests.conftest import Browser, Served, browsed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

    from tests.fakes import Stage

BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}
FRIEND = "https://app.example"
EVIL = "http://evil.example"
EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture
async def page(fake: Served, stage: Stage) -> AsyncIterator[Browser]:
    """A gateway to the service with the fakes, which a friend's pages may call."""
    stage.proceed.set()
    async with browsed(fake.address, gateway_cors_origins=FRIEND) as browser:
        yield browser


@pytest.mark.parametrize(
    ("headers", "is_own"),
    [
        ({}, True),  # no browser
        # Over plain HTTP, to a name, browsers say nothing more.
        ({**BROWSER, **EVENTS, "Referer": "http://own/"}, True),
        ({**BROWSER, **EVENTS, "Referer": f"{EVIL}/http://own/"}, False),
        ({**BROWSER, **EVENTS}, False),  # a page can keep back where it is, and ask for what it likes
        ({**BROWSER, "Accept": "image/avif,*/*"}, False),
        ({**BROWSER, "Accept": "*/*"}, False),
        ({**BROWSER, "Sec-Fetch-Site": "same-origin", "Accept": "*/*"}, True),
        ({**BROWSER, "Sec-Fetch-Site": "none"}, True),
        ({**BROWSER, **EVENTS, "Sec-Fetch-Site": "cross-site"}, False),
        ({**BROWSER, **EVENTS, "Sec-Fetch-Site": "same-site"}, False),
        ({**BROWSER, **EVENTS, "Sec-Fetch-Site": "cross-site", "Origin": FRIEND}, True),
        ({**BROWSER, **EVENTS, "Sec-Fetch-Site": "cross-site", "Origin": EVIL}, False),
        ({**EVENTS, "Origin": EVIL}, False),
        ({**EVENTS, "Origin": "null"}, False),
        ({**EVENTS, "Origin": "http://own"}, True),
    ],
)
async def test_only_its_own_pages_and_listed_ones_start_a_run_by_an_address(
    page: Browser, stage: Stage, headers: dict[str, str], is_own: bool
) -> None:
    """Whatever a browser says, or does not say, of where a page comes from."""
    given = {name: value.replace("http://own", page.url) for name, value in headers.items()}
    answer = await page.http.get("/chat?query=q", headers={"User-Agent": "curl/8", **given})
    assert answer.status_code == (200 if is_own else 403)
    assert len(stage.received) == is_own
    if not is_own:
        assert answer.json()["reason"] == "CROSS_SITE"


@pytest.mark.parametrize(
    ("headers", "is_own"),
    [
        ({}, True),
        (BROWSER, True),  # no page: with a form's request browsers send where it comes from
        ({**BROWSER, "Origin": "http://own"}, True),
        ({**BROWSER, "Origin": FRIEND, "Sec-Fetch-Site": "cross-site"}, True),
        ({**BROWSER, "Origin": EVIL}, False),
        ({**BROWSER, "Origin": EVIL, "Sec-Fetch-Site": "cross-site"}, False),
    ],
)
async def test_only_its_own_pages_and_listed_ones_stop_a_run(
    page: Browser, headers: dict[str, str], is_own: bool
) -> None:
    """A form of another site could post to the address of a run that it has guessed."""
    given = {name: value.replace("http://own", page.url) for name, value in headers.items()}
    answer = await page.http.post("/runs/nobody/cancel", headers={"User-Agent": "curl/8", **given})
    assert answer.json()["reason"] == ("RUN_NOT_FOUND" if is_own else "CROSS_SITE")


@pytest.mark.parametrize(
    ("hosts", "host", "headers", "status"),
    [
        ("", "localhost:1", BROWSER, 200),
        ("", "[::1]:1", BROWSER, 200),
        ("", "192.0.2.7", BROWSER, 200),
        ("", "evil.example:1", BROWSER, 421),
        ("", "evil.example:1", {"Sec-Fetch-Site": "same-origin"}, 421),
        ("", "localhost.evil.example", BROWSER, 421),
        ("", "evil.example:1", {}, 200),  # no browser can be lured here
        ("App.example, other.example", "app.example", BROWSER, 200),
        ("app.example", "evil.example", BROWSER, 421),
    ],
)
async def test_a_browser_calls_it_by_its_own_name(
    fake: Served, hosts: str, host: str, headers: dict[str, str], status: int
) -> None:
    """A page whose name was made to lead here would be of the same origin, and read everything."""
    async with browsed(fake.address, gateway_hosts=hosts) as browser:
        answer = await browser.http.get("/pipelines", headers={"User-Agent": "curl/8", "Host": host, **headers})
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["errors"][0]["field"] == "Host"
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("listen", "hosts", "known"),
    [
        ("127.0.0.1:8000", "", ()),
        ("[::1]:8000", "", ()),
        ("localhost:8000", "", ()),
        ("0.0.0.0:8000", "", None),
        ("gateway.example:8000", "", None),
        ("0.0.0.0:8000", "App.example", ("app.example",)),
    ],
)
def test_a_gateway_that_others_are_to_reach_has_any_name(
    listen: str, hosts: str, known: tuple[str, ...] | None
) -> None:
    """Unless they are listed: its operator alone knows them."""
    assert Settings(gateway_listen=listen, gateway_hosts=hosts).hosts == known


async def exchange(browser: Browser, *pieces: bytes) -> tuple[bytes, dict[str, Any]]:
    """Send bytes on a connection of their own; return the status line of the answer, and its body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", browser.gateway.port)
    for piece in pieces:
        writer.write(piece)
    async with asyncio.timeout(10):
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    writer.transport.abort()
    return head.split(b"\r\n")[0], json.loads(body)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Large: " + b"x" * (MAX_HEAD_BYTES + 1),
        b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X-Many: x\r\n" * (MAX_HEAD_BYTES // 10),
        b"GET /" + b"x" * (MAX_HEAD_BYTES + 1),
    ],
    ids=["one header", "many headers", "address"],
)
async def test_a_head_without_an_end_is_refused(page: Browser, head: bytes) -> None:
    """Its memory is bounded, whatever it is made of."""
    status, problem = await exchange(page, head)
    assert status.startswith(b"HTTP/1.1 431")
    assert problem["reason"] == "HEADERS_TOO_LARGE"


def head_of(size: int) -> bytes:
    """Return the head of a request that is as long as that, to the byte."""
    begin, end = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Large: ", b"\r\n\r\n"
    return begin + b"x" * (size - len(begin) - len(end)) + end


@pytest.mark.parametrize("more", [0, 1, 5_000])
async def test_a_head_may_be_as_large_as_the_limit_and_not_a_byte_larger(page: Browser, more: int) -> None:
    """Also where its end comes with the same read."""
    status, _ = await exchange(page, head_of(MAX_HEAD_BYTES + more))
    assert status.startswith(b"HTTP/1.1 431" if more else b"HTTP/1.1 200")


class Written(asyncio.Transport):
    """A connection that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.answer += bytes(data)

    def is_closing(self) -> bool:
        """Whether a refusal was the last word."""
        return b"connection: close" in self.answer

    def close(self) -> None:
        """Do nothing: there is nobody at the other end."""


@pytest.mark.parametrize("read_bytes", [1000, 4096, 65_535, 65_536, 262_144])
@pytest.mark.parametrize("more", [0, 1, 100_000])
async def test_a_head_is_counted_from_its_first_byte(read_bytes: int, more: int) -> None:
    """However many reads it takes, and also where its end comes with the last of them."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    config, state, line = uvicorn.Config(app, log_config=None), ServerState(), Written()
    config.load()
    connection = BoundedHeads(config, state, {})
    connection.connection_made(line)
    head = head_of(MAX_HEAD_BYTES + more)
    for start in range(0, len(head), read_bytes):
        connection.data_received(head[start : start + read_bytes])
    await asyncio.gather(*state.tasks)
    connection.connection_lost(None)
    assert line.answer.startswith(b"HTTP/1.1 431" if more else b"HTTP/1.1 204")


@pytest.mark.parametrize(("more", "answered"), [(0, b"HTTP/1.1 200"), (STEP_BYTES + 1, b"HTTP/1.1 431")])
async def test_a_head_behind_another_request_has_the_same_limit(page: Browser, more: int, answered: bytes) -> None:
    """To the step: where it begins within one, nothing tells where."""
    first = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", page.gateway.port)
    writer.write(first + head_of(MAX_HEAD_BYTES + more))
    async with asyncio.timeout(10):
        answers = await reader.read(-1)
    writer.transport.abort()
    assert answers.count(answered) == (2 if answered.endswith(b"200") else 1)


async def test_what_is_no_http_is_refused_in_the_same_shape(page: Browser) -> None:
    """As a problem document."""
    status, problem = await exchange(page, b"\x16\x03\x01\x00 hello\r\n\r\n")
    assert status.startswith(b"HTTP/1.1 400")
    assert problem["reason"] == "MALFORMED_REQUEST"


async def test_a_large_body_is_no_large_head(page: Browser) -> None:
    """Also where both come in one piece, and another request before it."""
    body = json.dumps({"query": "x" * (2 * MAX_HEAD_BYTES), "run_id": "a b"}).encode()
    request = b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    first = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", page.gateway.port)
    writer.write(first + request + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    async with asyncio.timeout(10):
        answers = await reader.read(-1)
    writer.transport.abort()
    assert answers.count(b"HTTP/1.1 200") == 1
    assert answers.count(b"HTTP/1.1 422") == 1


class Hasty(BoundedHeads):
    """A connection without patience."""

    head_seconds = 0.05


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nHost: x\r\n"])
async def test_a_head_that_does_not_come_is_not_waited_for(sent: bytes) -> None:
    """A sender who trickles, or says nothing at all, holds no connection for ever."""
    config, state = uvicorn.Config(FastAPI(), log_config=None), ServerState()
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Hasty(config, state, {}), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(sent)
        async with asyncio.timeout(5):
            assert await reader.read(-1) == b""
        writer.transport.abort()
