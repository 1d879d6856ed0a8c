"""A stand-in for OpenAI's streaming chat completions that costs next to nothing: raw sockets, chunks made before.

It reports each socket that its client closed in the middle of an answer, as a line of JSON with the answer's name and
the time.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import cast

from benchmarks.order import WORD, Order
from benchmarks.servers.listening import announced_socket

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(data: str) -> bytes:
    """Return one server-sent event as one chunk of HTTP."""
    payload = f"data: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def completion(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    """Return a chunk as OpenAI sends it."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    chunk = {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "benchmark",
        "choices": [choice],
    }
    return event(json.dumps(chunk, separators=(",", ":")))


SPOKEN = completion({"content": WORD})
END = completion({}, "stop") + event("[DONE]") + b"0\r\n\r\n"


class Provider(asyncio.Protocol):
    """One connection; one answer at a time."""

    def __init__(self) -> None:
        self._received = b""
        self._order: Order | None = None  # while an answer is not at its end
        self._drip: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by birth

    def data_received(self, data: bytes) -> None:
        """Answer as soon as a request is complete."""
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if separator and len(body) >= content_length(head):
            self._received = b""
            self._answer(Order.of(json.loads(body)["messages"][-1]["content"]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Report a client that left in the middle."""
        if self._drip is not None:
            self._drip.cancel()
        if self._order is not None:
            print(json.dumps({"name": self._order.name, "closed_ns": time.monotonic_ns()}), flush=True)

    def _answer(self, order: Order) -> None:
        if not order.words_then_stall:
            self._transport.write(HEAD + SPOKEN * order.words + END)
            return
        self._order = order
        self._transport.write(HEAD + SPOKEN * order.words_then_stall)
        self._say_more(order.stall_seconds)

    def _say_more(self, seconds: float) -> None:
        if seconds:
            self._drip = asyncio.get_running_loop().call_later(seconds, self._say_one, seconds)

    def _say_one(self, seconds: float) -> None:
        self._transport.write(SPOKEN)
        self._say_more(seconds)


def content_length(head: bytes) -> int:
    """Return how long a request's body is."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Provider, sock=announced_socket())
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
