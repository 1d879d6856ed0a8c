"""Counts aloud, at a pace of its own, until somebody asks it to stop; anything else it answers at once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from haystack.dataclasses import ChatMessage, StreamingCallbackT, StreamingChunk

from tests.fakes import OnLoop, pipeline_of, replied, tell

if TYPE_CHECKING:
    from haystack import Pipeline

PACE_SECONDS = 0.05
SHOUT = "A" * 10_000


class Canary:
    """`sing NAME` counts until `hush NAME`, and `shout` goes on for ever, as fast as it is read."""

    def __init__(self) -> None:
        self._songs: dict[str, asyncio.Event] = {}

    async def answer(self, query: str, streaming_callback: StreamingCallbackT | None) -> dict[str, list[ChatMessage]]:
        """Do what the question says."""
        word, _, name = query.partition(" ")
        if word == "sing":
            await self._sing(name, streaming_callback)
        elif word == "hush":
            self._songs[name].set()
        elif word == "shout":
            while True:
                await tell(streaming_callback, StreamingChunk(content=SHOUT, index=0))
        return replied(query)

    async def _sing(self, name: str, streaming_callback: StreamingCallbackT | None) -> None:
        hush = self._songs[name] = asyncio.Event()
        number = 0
        try:
            while not hush.is_set():
                number += 1
                await tell(streaming_callback, StreamingChunk(content=f"{number} ", index=0))
                with suppress(TimeoutError):
                    async with asyncio.timeout(PACE_SECONDS):
                        await hush.wait()
        finally:
            del self._songs[name]


def build() -> Pipeline:
    return pipeline_of(OnLoop(Canary().answer))
