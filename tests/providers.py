"""Providers that speak OpenAI's dialect on a port of the loopback, and tell the test what became of their callers."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@dataclass
class Provider:
    """Says a word at a time: the first at once, each further one as soon as it is told to, until its caller is gone."""

    base_url: str = ""
    requests: list[str] = field(default_factory=list[str])
    next_word: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(int(line[15:]) for line in head.lower().split("\r\n") if line.startswith("content-length"))
        self.requests.append(head + (await reader.readexactly(length)).decode())
        self.asked.set()
        writer.write(HEAD + _chunk("word "))
        speaking = asyncio.create_task(self._speak(writer))
        with suppress(ConnectionResetError):  # by a caller who has not read the last word
            await reader.read()  # until the caller closes
        self.left.set()
        speaking.cancel()
        writer.close()

    async def _speak(self, writer: asyncio.StreamWriter) -> None:
        while True:
            await self.next_word.acquire()
            writer.write(_chunk("word "))
            await writer.drain()


def _chunk(content: str) -> bytes:
    choices = [{"index": 0, "delta": {"content": content}, "finish_reason": None}]
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": choices}
    return f"data: {json.dumps(chunk)}\n\n".encode()


@asynccontextmanager
async def provider() -> AsyncGenerator[Provider]:
    """Run a provider."""
    running = Provider()
    server = await asyncio.start_server(running.answer, "127.0.0.1", 0)
    async with server:
        running.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        yield running
