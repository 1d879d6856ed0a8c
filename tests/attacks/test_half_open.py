"""Connections and requests that are begun and never ended."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.attacks.canary import withstood
from tests.attacks.wire import OPENING, PREFACE, Type, frame, head, in_frames, prefixed, wired

if TYPE_CHECKING:
    from tests.attacks.canary import Canary
    from tests.attacks.target import Target

CONNECTIONS = 200
HALF_A_MESSAGE = prefixed(b"x" * 1_000_000)[:1000]

BEGINNINGS = {
    "nothing": b"",
    "half a preface": PREFACE[:10],
    "a preface without settings": PREFACE,
    "half a frame": OPENING[:-4],
    "settings, and then silence": OPENING,
    "half of a head": OPENING + frame(Type.HEADERS, head()[:50], stream=1),
    "a head without a body": OPENING + in_frames(1, head()),
    "a head and half a message": OPENING + in_frames(1, head()) + frame(Type.DATA, HALF_A_MESSAGE, stream=1),
}


@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS)
async def test_what_is_begun_and_not_ended_holds_up_nobody(attacked: Target, beginning: bytes) -> None:
    """Neither while it is there, nor after it has gone."""

    async def attack(seen: Canary) -> None:
        with ExitStack() as stack:
            await asyncio.to_thread(_begin, stack, attacked.service.address, beginning)
            await seen.speaks()

    await withstood(attacked, attack)


def _begin(stack: ExitStack, address: str, beginning: bytes) -> None:
    for _ in range(CONNECTIONS):
        stack.enter_context(wired(address, beginning))
