"""Requests that are sent all but their last bytes: what a service takes of them it has to hold."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from haystream_service.entrance.decoding import Limits
from tests.attacks.canary import withstood
from tests.attacks.wire import INITIAL_WINDOW_BYTES, MAX_FRAME_BYTES, Type, frame, in_frames, path_head, prefixed, wired

if TYPE_CHECKING:
    from tests.attacks.canary import Canary
    from tests.attacks.target import Target
    from tests.attacks.wire import Wire

REQUEST_BYTES = 2 << 20
REQUESTS = 40
CHATS, WORDS = Limits().chats.at_once, Limits().others.at_once
REFLECTIONS, _ = Limits().reflections
AT_ONCE = {
    b"/haystream.v1.ChatService/Chat": CHATS,
    b"/haystream.v1.ChatService/Cancel": WORDS,
    b"/grpc.health.v1.Health/Check": WORDS,
    b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": REFLECTIONS,
}


@pytest.mark.parametrize("method", AT_ONCE, ids=lambda method: method.decode().rpartition("/")[2])
async def test_of_few_requests_more_is_taken_than_their_beginning(attacked: Target, method: bytes) -> None:
    """However many are begun, on a way however fast; and nothing of them stays."""
    taken: list[int] = []

    async def attack(_: Canary) -> None:
        taken.append(await asyncio.to_thread(_keep_back, attacked.service.address, method))

    await withstood(attacked, attack)
    whole = AT_ONCE[method] * REQUEST_BYTES
    assert max(taken) <= whole + REQUESTS * INITIAL_WINDOW_BYTES
    assert min(taken) >= whole * 0.9  # those that are read are held up by nothing


def _keep_back(address: str, method: bytes) -> int:
    """Send as much of all requests as is taken, but for their last byte; return how much that was."""
    message = prefixed(b"\0" * REQUEST_BYTES)[:-1]
    sent = {2 * number + 1: 0 for number in range(REQUESTS)}
    with wired(address) as wire:
        for stream in sent:
            wire.send(in_frames(stream, path_head(method)))
        wire.settle()
        while _push(wire, message, sent):
            wire.settle()
    return sum(sent.values())


def _push(wire: Wire, message: bytes, sent: dict[int, int]) -> bool:
    """Send what may be sent now; tell whether that was anything."""
    before = sum(sent.values())
    for stream in sent:
        while stream not in wire.answers.statuses and (size := _room(wire, stream, len(message), sent)):
            wire.send(frame(Type.DATA, message[sent[stream] : sent[stream] + size], stream=stream))
            sent[stream] += size
    return sum(sent.values()) > before


def _room(wire: Wire, stream: int, length: int, sent: dict[int, int]) -> int:
    opened = wire.answers.opened
    on_all = INITIAL_WINDOW_BYTES + opened[0] - sum(sent.values())
    on_stream = wire.answers.initial_window + opened[stream] - sent[stream]
    return max(0, min(MAX_FRAME_BYTES, length - sent[stream], on_all, on_stream))
