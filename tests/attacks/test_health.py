"""Attacks by health, which asks nobody who they are: on the service's own port, and on the one for probes."""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream_service.entrance.decoding import MAX_STRANGERS_BYTES
from tests.attacks.canary import canary, withstood
from tests.attacks.target import READY, called, target
from tests.attacks.wire import END_STREAM, OPENING, PREFACE, Type, frame, in_frames, path_head, prefixed, wired

if TYPE_CHECKING:
    from tests.attacks.target import Target

HEALTH = b"/grpc.health.v1.Health/"
NO_WINDOW = PREFACE + frame(Type.SETTINGS, b"\x00\x04" + (0).to_bytes(4))  # SETTINGS_INITIAL_WINDOW_SIZE
SERVICE = b"haystream.v1.ChatService"
ASKED = prefixed(b"\x0a" + bytes([len(SERVICE)]) + SERVICE)
WATCH = in_frames(1, path_head(HEALTH + b"Watch")) + frame(Type.DATA, ASKED, flags=END_STREAM, stream=1)
SOON_SECONDS = 10  # long before the peer that takes nothing is taken for dead
STREAMS = 20
LONG_BYTES = 2 << 20
LONG, SHORT, AT_ONCE = 5, 1500, 20  # questions: enough to be seen in the memory, if they were kept


@pytest.mark.parametrize("port", ["own", "probes"])
async def test_a_watcher_who_takes_nothing_keeps_nobody_from_their_answer(port: str) -> None:
    """Neither those who watch as well nor the service, which drains and ends when it is told to."""
    async with target(HAYSTREAM_HEALTH_LISTEN="127.0.0.1:0") as running:
        address = running.service.address if port == "own" else running.service.health_address
        with wired(address, NO_WINDOW) as wire:
            await asyncio.to_thread(wire.settle)
            wire.send(WATCH)
            await asyncio.to_thread(wire.settle)
            async with called(address) as channel:
                watch = health_pb2_grpc.HealthStub(channel).Watch(READY)
                told = aiter(watch)
                async with asyncio.timeout(SOON_SECONDS):
                    assert (await anext(told)).status == health_pb2.HealthCheckResponse.SERVING
                async with canary(running) as seen:
                    await seen.is_answered()
                running.service.process.terminate()
                async with asyncio.timeout(SOON_SECONDS):
                    assert (await anext(told)).status == health_pb2.HealthCheckResponse.NOT_SERVING
                watch.cancel()
            async with asyncio.timeout(SOON_SECONDS):
                await running.service.process.wait()


async def test_long_questions_are_refused_and_not_kept(attacked: Target) -> None:
    """A service's name is a few letters, and is not remembered where there is no such service."""

    async def attack(_: object) -> None:
        async with called(attacked.service.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            await _each_refused(health, LONG, LONG_BYTES, grpc.StatusCode.INVALID_ARGUMENT)
            await _each_refused(health, SHORT, MAX_STRANGERS_BYTES - 3, grpc.StatusCode.NOT_FOUND)

    await withstood(attacked, attack)


async def _each_refused(health: health_pb2_grpc.HealthStub, count: int, name_bytes: int, code: grpc.StatusCode) -> None:
    """Ask after so many services that there are not, each of another name, some at once."""
    places = asyncio.Semaphore(AT_ONCE)

    async def ask() -> None:
        async with places:
            asked = health_pb2.HealthCheckRequest(service=secrets.token_hex(name_bytes // 2))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health.Check(asked)
            assert caught.value.code() is code

    async with asyncio.TaskGroup() as calls:
        for _ in range(count):
            calls.create_task(ask())


async def test_parts_of_long_questions_go_with_their_connection(attacked: Target) -> None:
    """They are never read to their end."""
    asked = prefixed(b"\x0a" + _varint(LONG_BYTES) + b"x" * LONG_BYTES)

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
