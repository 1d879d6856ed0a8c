"""The bodies that the gateway reads: to a limit, and for a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from starlette.requests import Request

from haystream_gateway.bodies import MAX_BODY_BYTES, body_of
from haystream_gateway.problems import Rejection
from haystream_gateway.requests import ChatBody

if TYPE_CHECKING:
    from starlette.types import Message

    from tests.conftest import Browser


async def test_a_body_is_read_to_its_limit_and_no_further(page: Browser) -> None:
    """Also where nobody says how long it will be."""
    reader, writer = await asyncio.open_connection("127.0.0.1", page.gateway.port)
    writer.write(
        b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    answer = asyncio.create_task(reader.readuntil(b"}"))
    sent = 0
    while not answer.done() and sent < 10 * MAX_BODY_BYTES:
        writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
        sent += 65536
        await writer.drain()
    assert b"413" in (await answer).split(b"\r\n")[0]
    writer.transport.abort()
    assert MAX_BODY_BYTES < sent < 4 * MAX_BODY_BYTES


async def test_a_body_that_does_not_come_is_not_waited_for(page: Browser) -> None:
    """A sender who trickles holds nothing for ever."""
    received = asyncio.Event()

    async def receive() -> Message:
        received.set()
        await asyncio.Event().wait()
        raise AssertionError

    request = Request({"type": "http", "headers": [(b"content-type", b"application/json")]}, receive)
    with pytest.raises(Rejection) as rejected:
        await body_of(request, ChatBody, seconds=0.01)
    assert received.is_set()
    assert (rejected.value.problem.http_status, rejected.value.problem.reason) == (408, "BODY_TOO_SLOW")
