"""gRPC over the raw HTTP/2 connection: requests out, messages and the status in."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote

from benchmarks.readers.http2 import LARGEST_WINDOW, Http2Connection
from benchmarks.readers.stream import Incomplete, Piece
from haystream.v1 import chat_pb2

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Sequence

    from google.protobuf.message import Message

    from benchmarks.order import Order
    from benchmarks.readers.http2 import Header, Http2Stream

Keys: TypeAlias = "Callable[[], str]"
"""The key of a caller's own for the next call; empty: the call is on the server's."""

CHAT = "/haystream.v1.ChatService/Chat"
PREFIX_BYTES = 5  # whether the message is compressed, and its length
STREAMS_A_CONNECTION = 50


def no_key() -> str:
    """Call on the server's key."""
    return ""


def no_token() -> str:
    """Call without saying who calls."""
    return ""


@dataclass(frozen=True, slots=True)
class Way:
    """How callers come. `token` returns the one for the next call; empty: none. `encryption` None: in the clear."""

    token: Callable[[], str] = no_token
    encryption: ssl.SSLContext | None = None

    def headers(self, path: str, authority: str) -> list[Header]:
        """Return those of a call."""
        headers = [
            (":method", "POST"),
            (":scheme", "https" if self.encryption else "http"),
            (":path", path),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        token = self.token()
        return [*headers, ("authorization", f"Bearer {token}")] if token else headers


IN_THE_CLEAR = Way()


class GrpcStream:
    """One call."""

    def __init__(self, stream: Http2Stream) -> None:
        self._stream = stream
        self.sent_ns = stream.sent_ns

    @property
    def last_ns(self) -> int:
        """When its last message came."""
        blocks = self._stream.arrivals.blocks
        return blocks[-1][0] if blocks else self.sent_ns

    @property
    def status(self) -> int | None:
        """The status code, once it is there."""
        code = dict(self._stream.headers).get("grpc-status")
        return None if code is None else int(code)

    @property
    def is_answered(self) -> bool:
        """Whether the server has begun to answer."""
        return bool(self._stream.headers)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self._stream.arrivals.over.done()

    async def end(self) -> None:
        """Wait for the status."""
        await asyncio.shield(self._stream.arrivals.over)

    async def news(self) -> None:
        """Wait until more has come, or the end."""
        await self._stream.arrivals.news()

    def messages(self) -> Iterator[tuple[int, bytes]]:
        """Yield the messages and when each was complete."""
        rest = b""
        for arrived_ns, block in self._stream.arrivals.blocks:
            data, at = rest + block, 0
            while len(data) - at >= PREFIX_BYTES:
                end = at + PREFIX_BYTES + int.from_bytes(data[at + 1 : at + PREFIX_BYTES])
                if end > len(data):
                    break
                yield arrived_ns, data[at + PREFIX_BYTES : end]
                at = end
            rest = data[at:]

    def events(self) -> Iterator[tuple[int, chat_pb2.Event]]:
        """Yield the events and when each came."""
        for arrived_ns, message in self.messages():
            yield arrived_ns, chat_pb2.ChatResponse.FromString(message).event

    def pieces(self) -> Sequence[Piece]:
        """Return the text that has come so far."""
        return [Piece(ns, event.text.delta) for ns, event in self.events() if event.HasField("text")]

    def run_id(self) -> str:
        """Return the id of the run; empty before `started` has come."""
        return next((event.started.run_id for _, event in self.events() if event.HasField("started")), "")

    def check_ending(self) -> None:
        """Raise Incomplete unless the status is OK."""
        if self.status != 0:
            message = unquote(dict(self._stream.headers).get("grpc-message", ""))
            raise Incomplete(f"gRPC status {self.status}: {message}")

    def leave(self) -> None:
        """Cancel the call."""
        self._stream.reset()


class GrpcLine:
    """A connection, or one of the places on a connection that several share."""

    def __init__(self, connection: Http2Connection, authority: str, keys: Keys, way: Way) -> None:
        self.connection = connection
        self._authority = authority
        self._keys = keys
        self._way = way

    def ask(self, pipeline: str, order: Order) -> GrpcStream:
        """Call Chat."""
        request = chat_pb2.ChatRequest(pipeline=pipeline, query=order.question(), api_key=self._keys())
        return self.call(CHAT, request)

    def call(self, path: str, message: Message) -> GrpcStream:
        """Call any RPC that takes one message."""
        headers = self._way.headers(path, self._authority)
        body = message.SerializeToString()
        return GrpcStream(self.connection.request(headers, b"\0" + len(body).to_bytes(4) + body))

    def close(self) -> None:
        """Hang up; closing what is closed does no harm."""
        self.connection.close()


async def grpc_lines(
    port: int, count: int, window: int = LARGEST_WINDOW, keys: Keys = no_key, way: Way = IN_THE_CLEAR
) -> list[GrpcLine]:
    """Connect: streams share a few connections, as those of a real client do."""
    loop = asyncio.get_running_loop()
    name = None if way.encryption is None else "localhost"
    connections = [
        (
            await loop.create_connection(
                lambda: Http2Connection(window), "127.0.0.1", port, ssl=way.encryption, server_hostname=name
            )
        )[1]
        for _ in range(-(-count // STREAMS_A_CONNECTION))
    ]
    authority = f"127.0.0.1:{port}"
    return [GrpcLine(connections[number % len(connections)], authority, keys, way) for number in range(count)]
