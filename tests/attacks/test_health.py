"""Attacks by health, which asks nobody who they are: on the service's own port, and on the one for probes."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.attacks.canary import canary, withstood
from tests.attacks.target import target
from tests.attacks.wire import END_STREAM, OPENING, PREFACE, Type, frame, in_frames, path_head, prefixed, wired

if TYPE_CHECKING:
    from tests.attacks.target import Target

HEALTH = b"/grpc.health.v1.Health/"
NO_WINDOW = PREFACE + frame(Type.SETTINGS, b"\x00\x04" + (0).to_bytes(4))  # SETTINGS_INITIAL_WINDOW_SIZE
SERVICE = b"haystream.v1.ChatService"
ASKED = prefixed(b"\x0a" + bytes([len(SERVICE)]) + SERVICE)
WATCH = in_frames(1, path_head(HEALTH + b"Watch")) + frame(Type.DATA, ASKED, flags=END_STREAM, stream=1)
STREAMS = 20
LONG_BYTES = 2 << 20


@pytest.mark.parametrize("port", ["own", "probes"])
async def test_a_watcher_who_takes_nothing_keeps_nobody_from_their_answer(port: str) -> None:
    """Neither those who watch as well nor the service, which drains and ends when it is told to."""
    async with target(HAYSTREAM_HEALTH_LISTEN="127.0.0.1:0") as running:
        address = running.service.address if port == "own" else running.service.health_address
        with wired(address, NO_WINDOW) as wire:
            await asyncio.to_thread(wire.settle)
            wire.send(WATCH)
            await asyncio.to_thread(wire.settle)
            async with canary(running) as seen:
                await seen.is_answered()
            running.service.process.terminate()
            async with asyncio.timeout(10):
                await running.service.process.wait()


async def test_long_questions_are_refused_and_not_kept(attacked: Target) -> None:
    """A service's name is a few letters, and is not remembered where there is no such service."""
    name = b"x" * LONG_BYTES
    asked = prefixed(b"\x0a" + _varint(len(name)) + name)

    def attack(method: bytes) -> None:
        with wired(attacked.service.address, OPENING) as wire:
            wire.settle()
            for stream in range(1, 2 * STREAMS, 2):
                wire.send(in_frames(stream, path_head(HEALTH + method)))
                pieces = [asked[at : at + 16_000] for at in range(0, len(asked), 16_000)]
                wire.send(*[frame(Type.DATA, piece, stream=stream) for piece in pieces[:3]])
            wire.settle()

    async def both(_: object) -> None:
        await asyncio.gather(*[asyncio.to_thread(partial(attack, method)) for method in (b"Check", b"Watch")])

    await withstood(attacked, both)


def _varint(number: int) -> bytes:
    pieces = bytearray()
    while number > 0x7F:
        pieces.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*pieces, number])
