"""Random bytes and mutated conversations on both ports."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack, suppress
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.attacks.canary import withstood
from tests.attacks.noise import CONVERSATIONS, REQUESTS, mutated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.attacks.target import Target

ATTEMPTS = 300  # in a round
AT_ONCE = 50
CLOSED_SECONDS = 20.0


@pytest.fixture
def seed() -> int:
    """Another number each time, unless ATTACK_SEED tells the one of a failure. Printed with it."""
    number = int(os.environ.get("ATTACK_SEED", "0")) or int.from_bytes(os.urandom(4))
    print(f"ATTACK_SEED={number}")  # noqa: T201 - pytest shows it for a test that fails
    return number


@pytest.mark.parametrize("command", ["service", "gateway"])
async def test_what_makes_no_sense_is_answered_or_closed(attacked: Target, seed: int, command: str) -> None:
    """Each connection ends once its sender has said all, whatever it was."""
    random = Random(seed)  # noqa: S311 - for a mess, not for a secret
    address, conversations = {
        "service": (attacked.service.address, CONVERSATIONS),
        "gateway": (attacked.gateway.address, REQUESTS),
    }[command]

    def attack() -> None:
        for _ in range(ATTEMPTS // AT_ONCE):
            _all_end(address, [mutated(random, conversations) for _ in range(AT_ONCE)])

    await withstood(attacked, lambda _: asyncio.to_thread(attack))


def _all_end(address: str, messes: Sequence[bytes]) -> None:
    """Send all of them; wait until the other side has closed each connection. Raises TimeoutError where it does not."""
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        connections: list[socket.socket] = []
        for mess in messes:
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=CLOSED_SECONDS))
            connections.append(connection)
            with suppress(ConnectionError, OSError):
                connection.sendall(mess)
                connection.shutdown(socket.SHUT_WR)
        for connection in connections:
            with suppress(ConnectionError):
                while connection.recv(65536):
                    pass
