"""How long a connection to the gateway may be held, by a clock that goes when a test says so."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import uvicorn
from uvicorn.server import ServerState

from haystream_gateway.connections import HEAD_SECONDS, REST_SECONDS, BoundedHeads
from tests.clock import ClockedLoop, clocked

if TYPE_CHECKING:
    from collections.abc import Generator

    from starlette.types import Receive, Scope, Send

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n"
TEN = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
READ = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"

KEEP_ALIVE_SECONDS = 5  # uvicorn's own


class Wire(asyncio.Transport):
    """A connection that keeps what is written, until it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.written += bytes(data)

    def is_closing(self) -> bool:
        """Whether it is closed."""
        return self.is_closed

    def close(self) -> None:
        """Note it."""
        self.is_closed = True

    def pause_reading(self) -> None:
        """Do nothing: what comes is for the test to say."""

    def resume_reading(self) -> None:
        """Do nothing."""


@dataclass
class Connected:
    """Somebody who has connected, and what the clock says."""

    loop: ClockedLoop
    connection: BoundedHeads
    wire: Wire
    state: ServerState
    answer: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def answers(self) -> int:
        """How many answers have come."""
        return self.wire.written.count(b"HTTP/1.1 204")

    def send(self, data: bytes, seconds: float = 0) -> None:
        """Let time pass, and send."""
        self.loop.turn(seconds)
        self.loop.run_until_complete(self._send(data))
        self.loop.turn()

    def held_seconds(self, drop: bytes, limit: int = 100) -> int:
        """Send a little every second; return how long the connection stays."""
        for second in range(limit):
            if self.wire.is_closed:
                return second
            self.send(drop, 1)
        return limit

    async def _send(self, data: bytes) -> None:
        if not self.wire.is_closed:
            self.connection.data_received(data)


@contextmanager
def connected() -> Generator[Connected]:
    """Connect to what answers at once; to /read with a body that it has read; and to /slow when it is told to."""
    with clocked() as loop:
        answer = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/slow":
                await answer.wait()
            while scope["path"] == "/read" and (await receive()).get("more_body"):
                pass
            await send({"type": "http.response.start", "status": 204})
            await send({"type": "http.response.body"})

        async def connect() -> Connected:
            config, state, wire = uvicorn.Config(app, log_config=None), ServerState(), Wire()
            config.load()
            connection = BoundedHeads(config, state, {})
            connection.connection_made(wire)
            return Connected(loop, connection, wire, state, answer)

        one = loop.run_until_complete(connect())
        yield one
        one.connection.connection_lost(None)
        loop.turn()
        assert not one.state.tasks
        one.loop.turn(1000)  # no timer is left that would do anything to it


@pytest.mark.parametrize(("head", "drop"), [(POST, b"x"), (CHUNKED, b"1\r\nx\r\n")], ids=["a length", "chunks"])
def test_a_body_without_an_end_holds_no_connection_that_is_answered(head: bytes, drop: bytes) -> None:
    """However steadily it comes: each byte would start uvicorn's own clock anew."""
    with connected() as one:
        one.send(head)
        assert (one.answers, one.wire.is_closed) == (1, False)
        assert one.held_seconds(drop) == REST_SECONDS


def test_who_is_answered_early_may_send_the_rest_and_ask_again() -> None:
    """Over the same connection, as most clients do."""
    with connected() as one:
        one.send(TEN)
        one.send(b"12345", REST_SECONDS / 2)
        assert one.answers == 1
        one.send(b"67890", REST_SECONDS / 2 - 0.1)
        one.send(GET, REST_SECONDS)
        assert (one.answers, one.wire.is_closed) == (2, False)


def test_a_rest_that_comes_late_begins_the_wait_for_the_next_head() -> None:
    """Which has the same limit as the first."""
    with connected() as one:
        one.send(TEN)
        one.send(b"1234567890", 1)
        one.loop.turn(HEAD_SECONDS - 1)
        assert not one.wire.is_closed
        one.loop.turn(1)
        assert one.wire.is_closed


def test_blank_lines_are_no_head() -> None:
    """HTTP lets them stand before one, and they begin none."""
    with connected() as one:
        one.send(GET)
        assert one.held_seconds(b"\r\n") == HEAD_SECONDS


def test_who_says_nothing_after_an_answer_is_let_go() -> None:
    """Soon."""
    with connected() as one:
        one.send(GET)
        one.loop.turn(KEEP_ALIVE_SECONDS - 1)
        assert not one.wire.is_closed
        one.loop.turn(1)
        assert one.wire.is_closed


def test_who_asks_again_and_again_keeps_the_connection() -> None:
    """As long as that may take."""
    with connected() as one:
        for _ in range(30):
            one.send(GET, KEEP_ALIVE_SECONDS - 1)
        assert (one.answers, one.wire.is_closed) == (30, False)


def test_who_waits_for_an_answer_is_not_let_go() -> None:
    """A stream may take minutes, and its reader may have a body that nobody reads."""
    with connected() as one:
        one.send(SLOW)
        assert one.held_seconds(b"x", limit=90) == 90
        one.answer.set()
        assert one.held_seconds(b"x") == REST_SECONDS
        assert one.answers == 1


def test_requests_behind_each_other_have_their_own_bodies() -> None:
    """The answer to the first says nothing about the body of the second, which is still to come."""
    with connected() as one:
        one.send(GET + READ)
        assert one.answers == 1
        assert one.held_seconds(b"", limit=20) == 20
        one.send(b"1234567890")
        assert (one.answers, one.wire.is_closed) == (2, False)
