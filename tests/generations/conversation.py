"""What callers and the provider behind a pipeline say to each other, and how they part."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import grpc.aio

from haystream.v1 import chat_pb2
from tests.calls import text_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Served
    from tests.generations.installed import Kind
    from tests.providers import Provider

ASK = chat_pb2.ChatRequest(query="Why is the sky blue?", run_id="r")
ANSWER = "Air scatters blue light the most."
SECONDS = 10  # in which what is bound to happen has happened, and much more

ChatCall = grpc.aio.UnaryStreamCall[chat_pb2.ChatRequest, chat_pb2.ChatResponse]


def folder_of(kind: Kind, folder: Path) -> Path:
    """Return a folder with that pipeline alone."""
    shutil.copy(kind.path, folder)
    return folder


def say(query: str) -> chat_pb2.ChatRequest:
    """Return a request for an actor."""
    return chat_pb2.ChatRequest(query=query)


async def read_until(call: ChatCall, text: str) -> list[chat_pb2.Event]:
    """Read on until that has been said."""
    events: list[chat_pb2.Event] = []
    async with asyncio.timeout(SECONDS):
        async for response in call:
            events.append(response.event)
            if text_of(events) == text:
                break
    assert text_of(events) == text
    return events


def say_next(talking: Provider, count: int) -> None:
    """Let the provider say so many words more, of all its answers."""
    for _ in range(count):
        talking.next_word.release()


async def leave(running: Served, talking: Provider, *calls: ChatCall) -> None:
    """Leave, and let those that are in threads learn of it."""
    for call in calls:
        call.cancel()
    await running.runs.until_idle()
    say_next(talking, len(calls))
    await gone(talking)


async def is_left(running: Served, talking: Provider, kind: Kind) -> None:
    """See to it that the provider's caller goes: at once, or with the next word and not before."""
    await running.runs.until_idle()
    if not kind.on_loop:
        assert running.service.threads.orphans == 1
        assert not talking.left.is_set()
        say_next(talking, 1)
    await gone(talking)


async def gone(talking: Provider) -> None:
    """Wait until a caller of the provider has gone."""
    async with asyncio.timeout(SECONDS):
        await talking.left.wait()
