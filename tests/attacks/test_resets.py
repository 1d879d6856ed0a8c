"""Rapid reset: streams opened and reset in a loop, so that no limit on open streams ever holds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.attacks.canary import withstood
from tests.attacks.wire import END_STREAM, Type, chat, frame, head, in_frames, wired

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.attacks.target import Target

CONNECTIONS = 4
STREAMS = 1000  # on each of them
ROUNDS = 3

# gRPC's core forgets about 100 bytes for each stream that is reset before it was taken (grpcio 1.85.1; 96 to 97 over
# 64,000 of them), and where they lie its allocator cannot hand back the pages.
TOLERANCE_BYTES = 24 << 20
CANCEL = (8).to_bytes(4)


def with_a_question(stream: int) -> bytes:
    """A whole request, whose model would go on for ever."""
    return chat(stream, f"sing reset-{stream}")


def without_a_message(stream: int) -> bytes:
    """The head of a request."""
    return in_frames(stream, head())


def without_the_message(stream: int) -> bytes:
    """A request that ends before it has said anything."""
    return in_frames(stream, head()) + frame(Type.DATA, flags=END_STREAM, stream=stream)


@pytest.mark.parametrize("opened", [with_a_question, without_a_message, without_the_message])
async def test_streams_that_are_reset_leave_no_run(attacked: Target, opened: Callable[[int], bytes]) -> None:
    """Thousands of them, on several connections: each model stops."""
    address = attacked.service.address
    streams = range(1, 2 * STREAMS, 2)
    resets = b"".join(opened(stream) + frame(Type.RST_STREAM, CANCEL, stream=stream) for stream in streams)

    def attack() -> None:
        with wired(address) as wire:
            if wire.send(resets):
                wire.settle()  # it has seen them all, or has closed the connection over them

    await withstood(attacked, lambda _: _at_once(attack), rounds=ROUNDS, tolerance_bytes=TOLERANCE_BYTES)


async def test_calls_that_are_left_open_end_with_their_connection(attacked: Target) -> None:
    """Models that would go on for ever stop, half of them before that; and so does what has never asked anything."""
    address = attacked.service.address
    resets = b"".join(frame(Type.RST_STREAM, CANCEL, stream=stream) for stream in range(1, 400, 8))
    opened = b"".join(with_a_question(stream) + without_the_message(stream + 2) for stream in range(1, 400, 4))

    def attack() -> None:
        with wired(address) as wire:
            wire.settle()
            wire.send(opened)
            wire.settle()
            wire.send(resets)
            wire.settle()

    await withstood(attacked, lambda _: _at_once(attack), rounds=ROUNDS, tolerance_bytes=TOLERANCE_BYTES)


async def _at_once(attack: Callable[[], None]) -> None:
    await asyncio.gather(*[asyncio.to_thread(attack) for _ in range(CONNECTIONS)])
