"""The part of HTTP/2 (RFC 9113) that a gRPC client needs, over one connection. Knows nothing of gRPC's messages."""

from __future__ import annotations

import asyncio
import struct
import time
from typing import TYPE_CHECKING, cast

from hpack import Decoder

from benchmarks.readers.stream import Arrivals, Incomplete

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
ENABLE_PUSH, INITIAL_WINDOW_SIZE = 2, 4
CANCEL = 8
FRAME_HEAD = struct.Struct(">HBBBI")  # the length takes three bytes: two and one
HEAD_BYTES = 9
LONG_TEXT, MORE = 127, 128  # what seven bits hold at most, and the bit that says that more follow
LARGEST_WINDOW = 2**31 - 1
FIRST_WINDOW = 65_535  # what a connection has before any WINDOW_UPDATE
Header = tuple[str, str]


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return FRAME_HEAD.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream_id) + payload


def header_block(headers: Iterable[Header]) -> bytes:
    """Return headers as literals that no table remembers (RFC 7541, 6.2.2)."""
    block = bytearray()
    for header in headers:
        block.append(0)
        for part in header:
            block += length_prefix(len(part)) + part.encode()
    return bytes(block)


def length_prefix(length: int) -> bytes:
    """Return the length of a text that is sent as it is (RFC 7541, 5.1 and 5.2)."""
    if length < LONG_TEXT:
        return bytes([length])
    prefix, rest = bytearray([LONG_TEXT]), length - LONG_TEXT
    while rest >= MORE:
        prefix.append(rest % MORE + MORE)
        rest //= MORE
    return bytes([*prefix, rest])


class Http2Stream:
    """One request and what came back."""

    def __init__(self, connection: Http2Connection, stream_id: int) -> None:
        self._connection = connection
        self._id = stream_id
        self.sent_ns = time.monotonic_ns()
        self.arrivals = Arrivals()
        self.headers: list[Header] = []
        self.unacknowledged_bytes = 0

    def reset(self) -> None:
        """Tell the server that nobody reads this stream any more."""
        self._connection.reset(self._id)


class Http2Connection(asyncio.Protocol):
    """A client's connection. `window` is what it lets the server send ahead, per stream and in all."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._streams: dict[int, Http2Stream] = {}
        self._next_id = 1
        self._rest = b""
        self._decoder = Decoder()
        self._unacknowledged_bytes = 0
        self._grants_window = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce the client."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by birth
        settings = struct.pack(">HIHI", ENABLE_PUSH, 0, INITIAL_WINDOW_SIZE, self._window)
        more = struct.pack(">I", max(0, self._window - FIRST_WINDOW))
        update = frame(WINDOW_UPDATE, 0, 0, more) if self._window > FIRST_WINDOW else b""
        self._transport.write(PREFACE + frame(SETTINGS, 0, 0, settings) + update)

    def request(self, headers: Iterable[Header], body: bytes) -> Http2Stream:
        """Send a request, whole."""
        stream_id, self._next_id = self._next_id, self._next_id + 2
        block = frame(HEADERS, END_HEADERS, stream_id, header_block(headers))
        stream = self._streams[stream_id] = Http2Stream(self, stream_id)
        self._transport.write(block + frame(DATA, END_STREAM, stream_id, body))
        return stream

    def reset(self, stream_id: int) -> None:
        """End a stream from this side."""
        if (stream := self._streams.pop(stream_id, None)) is not None:
            self._transport.write(frame(RST_STREAM, 0, stream_id, struct.pack(">I", CANCEL)))
            stream.arrivals.finish(Incomplete("left by its own reader"))

    def stop_reading(self) -> None:
        """Leave what comes in the socket."""
        self._transport.pause_reading()

    def stop_granting(self) -> None:
        """Read on, but let the server send no more than the window: a client whose program takes no message."""
        self._grants_window = False

    def go_on(self) -> None:
        """Take up what was stopped."""
        self._grants_window = True
        for stream_id, stream in self._streams.items():
            stream.unacknowledged_bytes = self._grant(stream_id, stream.unacknowledged_bytes)
        self._unacknowledged_bytes = self._grant(0, self._unacknowledged_bytes)
        self._transport.resume_reading()

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all who still wait."""
        for stream in self._streams.values():
            stream.arrivals.finish(Incomplete("the connection was lost"))
        self._streams.clear()

    def data_received(self, data: bytes) -> None:
        """Cut what came into frames."""
        now = time.monotonic_ns()
        data = self._rest + data if self._rest else data
        at, size = 0, len(data)
        while size - at >= HEAD_BYTES:
            high, low, kind, flags, stream_id = FRAME_HEAD.unpack_from(data, at)
            end = at + HEAD_BYTES + (high << 8 | low)
            if end > size:
                break
            self._take(now, kind, flags, stream_id, data[at + HEAD_BYTES : end])
            at = end
        self._rest = data[at:]

    def _take(self, now: int, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        match kind:
            case 0:  # DATA: neither padding nor priorities are anything that gRPC sends
                self._take_data(now, flags, stream_id, payload)
            case 1:  # HEADERS
                self._take_headers(flags, stream_id, payload)
            case 3:  # RST_STREAM
                self._finish(stream_id, Incomplete(f"reset by the server, code {int.from_bytes(payload)}"))
            case 4 if not flags & ACK:  # SETTINGS
                self._transport.write(frame(SETTINGS, ACK, 0))
            case 6 if not flags & ACK:  # PING
                self._transport.write(frame(PING, ACK, 0, payload))
            case 7:  # GOAWAY
                self._say_goodbye(payload)
            case 9:  # CONTINUATION
                raise NotImplementedError("headers that long are not what these servers send")
            case _:
                pass

    def _take_data(self, now: int, flags: int, stream_id: int, payload: bytes) -> None:
        self._unacknowledged_bytes = self._grant_in_steps(0, self._unacknowledged_bytes + len(payload))
        if (stream := self._streams.get(stream_id)) is None:
            return
        stream.unacknowledged_bytes = self._grant_in_steps(stream_id, stream.unacknowledged_bytes + len(payload))
        stream.arrivals.add(now, payload)
        if flags & END_STREAM:
            self._finish(stream_id)

    def _take_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        headers = [(str(name), str(value)) for name, value in self._decoder.decode(payload)]  # keeps the table in step
        if (stream := self._streams.get(stream_id)) is not None:
            stream.headers += headers
            stream.arrivals.tell()
            if flags & END_STREAM:
                self._finish(stream_id)

    def _say_goodbye(self, payload: bytes) -> None:
        last = int.from_bytes(payload[:4])
        for stream_id in [one for one in self._streams if one > last]:
            self._finish(stream_id, Incomplete("the server is going away"))

    def _finish(self, stream_id: int, error: Incomplete | None = None) -> None:
        if (stream := self._streams.pop(stream_id, None)) is not None:
            stream.arrivals.finish(error)

    def _grant_in_steps(self, stream_id: int, size: int) -> int:
        """Renew the window once half of it is used: an update per message would cost more than the message."""
        return self._grant(stream_id, size) if self._grants_window and size >= self._window // 2 else size

    def _grant(self, stream_id: int, size: int) -> int:
        if size:
            self._transport.write(frame(WINDOW_UPDATE, 0, stream_id, struct.pack(">I", size)))
        return 0
