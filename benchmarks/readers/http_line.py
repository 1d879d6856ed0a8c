"""Streams over HTTP: plain text, or the gateway's server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

from benchmarks.readers.http1 import Http1Connection, body_blocks
from benchmarks.readers.stream import Incomplete, Piece

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.order import Order
    from benchmarks.readers.stream import Arrivals


class PlainStream:
    """An answer whose body is its text."""

    def __init__(self, connection: Http1Connection, body: bytes) -> None:
        self.connection = connection
        self.sent_ns = time.monotonic_ns()
        self._arrivals: Arrivals = connection.post("/chat", body)

    @property
    def last_ns(self) -> int:
        """When its last byte came."""
        return self._arrivals.blocks[-1][0] if self._arrivals.blocks else self.sent_ns

    @property
    def is_answered(self) -> bool:
        """Whether the server has begun to answer."""
        return bool(self._arrivals.blocks)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self._arrivals.over.done()

    async def end(self) -> None:
        """Wait for the last chunk."""
        await asyncio.shield(self._arrivals.over)

    async def news(self) -> None:
        """Wait until more has come, or the end."""
        await self._arrivals.news()

    def blocks(self) -> list[tuple[int, bytes]]:
        """Return the body that has come so far."""
        return body_blocks(self._arrivals.blocks)

    def pieces(self) -> Sequence[Piece]:
        """Return the text that has come so far."""
        return [Piece(arrived_ns, block.decode()) for arrived_ns, block in self.blocks()]

    def check_ending(self) -> None:
        """Raise Incomplete unless the last chunk has come."""
        if not self._arrivals.over.done() or self._arrivals.over.exception() is not None:
            raise Incomplete("the answer has no end")

    def leave(self) -> None:
        """Close the socket."""
        self.connection.abort()


class EventStream(PlainStream):
    """An answer of server-sent events: `data` is text, `end` is the end."""

    def frames(self) -> Iterator[tuple[int, str, str]]:
        """Yield the events, when each was complete, and their data."""
        text = ""
        for arrived_ns, block in self.blocks():
            text += block.decode()
            *complete, text = text.split("\n\n")
            for frame in complete:
                fields = {name: value for name, _, value in (line.partition(": ") for line in frame.split("\n"))}
                yield arrived_ns, fields.get("event", ""), fields.get("data", "")

    def pieces(self) -> Sequence[Piece]:
        """Return the text that has come so far."""
        return [Piece(arrived_ns, json.loads(data)) for arrived_ns, event, data in self.frames() if event == "data"]

    def check_ending(self) -> None:
        """Raise Incomplete unless the last event is `end`."""
        super().check_ending()
        last = [(event, data) for _, event, data in self.frames()][-1:]
        if [event for event, _ in last] != ["end"]:
            raise Incomplete(f"the last event is {last}")


class HttpLine:
    """One socket."""

    def __init__(self, connection: Http1Connection, stream: Callable[[Http1Connection, bytes], PlainStream]) -> None:
        self.connection = connection
        self._stream = stream

    def ask(self, pipeline: str, order: Order) -> PlainStream:
        """Send a question."""
        body = json.dumps({"query": order.question(), "pipeline": pipeline}).encode()
        return self._stream(self.connection, body)

    def close(self) -> None:
        """Hang up."""
        self.connection.abort()


async def http_lines(port: int, count: int, stream: Callable[[Http1Connection, bytes], PlainStream]) -> list[HttpLine]:
    """Connect: HTTP/1.1 takes a socket a stream."""
    loop = asyncio.get_running_loop()
    return [
        HttpLine((await loop.create_connection(Http1Connection, "127.0.0.1", port))[1], stream) for _ in range(count)
    ]
