"""A stream as its reader has recorded it: blocks of bytes and when each came."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.order import Order


class Incomplete(Exception):
    """A stream did not bring what was ordered, or ended in an error: the figures would mean nothing."""


class Piece(NamedTuple):
    """A piece of text, and when the last byte of its message came."""

    arrived_ns: int
    text: str


class Stream(Protocol):
    """One answer, on its way or complete."""

    sent_ns: int

    @property
    def last_ns(self) -> int:
        """When its last byte came."""
        ...

    @property
    def is_answered(self) -> bool:
        """Whether the server has begun to answer."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        ...

    async def end(self) -> None:
        """Wait for the end. Raises Incomplete where the connection breaks first."""

    async def news(self) -> None:
        """Wait until something new has come: text, an answer without any yet, or the end."""

    def pieces(self) -> Sequence[Piece]:
        """Return the text that has come so far."""
        ...

    def check_ending(self) -> None:
        """Raise Incomplete unless the stream has ended as a success."""

    def leave(self) -> None:
        """Go away, whatever is still to come."""


class Line(Protocol):
    """A way to a server on which a question can be asked."""

    def ask(self, pipeline: str, order: Order) -> Stream:
        """Send a question."""
        ...

    def close(self) -> None:
        """Hang up."""


class Arrivals:
    """What has come, and whoever waits for more."""

    def __init__(self) -> None:
        self.blocks: list[tuple[int, bytes]] = []
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._news: asyncio.Future[None] | None = None

    def add(self, arrived_ns: int, block: bytes) -> None:
        """Record a block."""
        self.blocks.append((arrived_ns, block))
        if self._news is not None:
            self.tell()

    def finish(self, error: Incomplete | None = None) -> None:
        """Record the end."""
        if self.over.done():
            return
        if error is None:
            self.over.set_result(None)
        else:
            self.over.set_exception(error)
            self.over.exception()  # whoever left does not ask any more
        self.tell()

    async def news(self) -> None:
        """Wait until a block or the end is recorded."""
        if not self.over.done():
            self._news = self._news or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._news)

    def tell(self) -> None:
        """Wake whoever waits."""
        news, self._news = self._news, None
        if news is not None and not news.done():
            news.set_result(None)


async def first_pieces(stream: Stream) -> Sequence[Piece]:
    """Wait for the first words. Raises Incomplete where the stream ends without any."""
    while not (pieces := stream.pieces()):
        if stream.is_over:
            raise Incomplete("the stream ended before its first word")
        await stream.news()
    return pieces
