"""Slow-loris on the gateway: heads and bodies byte by byte, and readers who never read.

What is done about one such connection is in test_gateway_sites, test_gateway_bodies and test_gateway_streams; here they
are many.
"""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.attacks.canary import canary, withstood

if TYPE_CHECKING:
    from tests.attacks.canary import Canary
    from tests.attacks.target import Rest, Target

CONNECTIONS = 300
BYTES = 40  # that each of them trickles
READERS = 50
WORDS = 10  # that the canary says meanwhile

BODY = json.dumps({"query": "x" * 1000}).encode()
POST = b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"

TRICKLES = {
    "an address": (b"", b"GET /" + b"x" * BYTES),
    "a head": (b"GET /livez HTTP/1.1\r\nHost: x\r\n", b"X-Slow: " + b"x" * BYTES),
    "a body": (POST, BODY[:BYTES]),
    "a body in chunks": (CHUNKED, b"1\r\n \r\n" * (BYTES // 6)),
}


@pytest.mark.parametrize(("sent", "trickled"), TRICKLES.values(), ids=TRICKLES)
async def test_those_who_trickle_hold_up_nobody(attacked: Target, sent: bytes, trickled: bytes) -> None:
    """Hundreds of them, byte by byte."""

    def attack() -> None:
        with ExitStack() as stack:
            connections = [stack.enter_context(_connected(attacked)) for _ in range(CONNECTIONS)]
            for connection in connections:
                connection.sendall(sent)
            for byte in trickled:
                for connection in connections:
                    connection.sendall(bytes([byte]))

    await withstood(attacked, lambda _: asyncio.to_thread(attack))


async def test_readers_who_never_read_are_cut_off(attacked: Target) -> None:
    """Models that would go on for ever are held back, and then stopped, while the readers are still there."""
    before = await attacked.rest()
    after = await _never_read(attacked, before)
    assert not after.exceeds(before)
    assert not attacked.gateway.complaints


async def test_readers_who_leave_what_they_have_not_read_take_nothing_with_them(attacked: Target) -> None:
    """What has come for them, as fast as it could, is given back by the gateway and by the service."""

    async def attack(seen: Canary) -> None:
        with ExitStack() as stack:
            _ask_and_never_read(attacked, stack)
            for _ in range(WORDS):
                await seen.speaks()

    await withstood(attacked, attack)


async def _never_read(attacked: Target, before: Rest) -> Rest:
    """Ask, and wait until nothing of it is left in the service and the gateway."""
    with ExitStack() as stack:
        async with canary(attacked) as seen:
            _ask_and_never_read(attacked, stack)
            for _ in range(WORDS):
                await seen.speaks()
        return await attacked.rest(before)


def _ask_and_never_read(attacked: Target, stack: ExitStack) -> None:
    for _ in range(READERS):
        reader = stack.enter_context(_connected(attacked))
        reader.sendall(b"GET /chat?query=shout HTTP/1.1\r\nHost: x\r\n\r\n")


def _connected(attacked: Target) -> socket.socket:
    host, _, port = attacked.gateway.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)
