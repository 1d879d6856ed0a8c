"""How many calls each of those who call may have at once, before it is known what they want."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haystream_service.errors import TooManyRequestsOfYours, TooManyStreams, TooManyStreamsOfYours
from haystream_service.run.shares import Shares

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator


@dataclass(slots=True)
class _Line:
    places: asyncio.Semaphore
    calls: int = 0


class Places:
    """So many places for each who calls; one call more stands in line, behind others of the same caller's alone."""

    def __init__(self, each: int, line_seconds: float) -> None:
        self._each = each
        self._line_seconds = line_seconds
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def place(self, who: str) -> AsyncGenerator[None]:
        """Have a place while the block lasts, as soon as there is one. Raises TooManyRequestsOfYours."""
        line = self._lines.setdefault(who, _Line(asyncio.Semaphore(self._each)))
        line.calls += 1
        try:
            await self._stand_in(line)
            try:
                yield
            finally:
                line.places.release()
        finally:
            line.calls -= 1
            if not line.calls:
                del self._lines[who]

    async def _stand_in(self, line: _Line) -> None:
        if not line.places.locked():  # mostly: no timer for what does not wait
            await line.places.acquire()
            return
        try:
            async with asyncio.timeout(self._line_seconds):
                await line.places.acquire()
        except TimeoutError:
            raise TooManyRequestsOfYours(self._each) from None


class Streams:
    """Streams that stay open for people whom nobody knows: so many on a connection, and so many in all."""

    def __init__(self, on_a_connection: int, in_all: int) -> None:
        self._on_a_connection = on_a_connection
        self._in_all = in_all
        self._open = Shares()

    @contextmanager
    def stream(self, connection: str) -> Generator[None]:
        """Count a stream while the block lasts. Raises TooManyStreamsOfYours, TooManyStreams."""
        if self._open.of(connection) >= self._on_a_connection:
            raise TooManyStreamsOfYours(self._on_a_connection)
        if self._open.total >= self._in_all:
            raise TooManyStreams(self._in_all)
        self._open.take(connection)
        try:
            yield
        finally:
            self._open.give_back(connection)
