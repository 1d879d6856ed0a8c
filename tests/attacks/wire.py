"""HTTP/2 by hand: what no honest client would send, and what comes back. Blocks: to be used in a thread."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from hpack import Decoder

from haystream.v1 import chat_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from google.protobuf.message import Message

    Header = tuple[bytes, bytes]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
READ_SECONDS = 10.0  # longest that an answer is waited for
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
MAX_FRAME_BYTES = 16 * 1024


class Type(IntEnum):
    """Kinds of frames."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


def frame(kind: Type, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """Return a frame."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


OPENING = PREFACE + frame(Type.SETTINGS)


def block(headers: Iterable[Header]) -> bytes:
    """Return headers as they are, compressed by nothing."""
    return b"".join(b"\x10" + string(name) + string(value) for name, value in headers)


def head(rpc: bytes = b"Chat", extra: Iterable[Header] = ()) -> bytes:
    """Return the header block of a call of the service."""
    return path_head(b"/haystream.v1.ChatService/" + rpc, extra)


def path_head(path: bytes, extra: Iterable[Header] = ()) -> bytes:
    """Return the header block of any call."""
    own = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", b"x"),
        (b":path", path),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
    return block([*own, *extra])


def message_of(request: Message) -> bytes:
    """Return a message as gRPC frames it inside of HTTP/2's DATA."""
    return prefixed(request.SerializeToString())


def prefixed(message: bytes) -> bytes:
    """Return bytes as gRPC frames a message."""
    return b"\0" + len(message).to_bytes(4) + message


def chat(stream: int, query: str, extra: Iterable[Header] = ()) -> bytes:
    """Return the frames of a whole Chat."""
    asked = message_of(chat_pb2.ChatRequest(query=query))
    return in_frames(stream, head(extra=extra)) + frame(Type.DATA, asked, flags=END_STREAM, stream=stream)


def in_frames(stream: int, headers: bytes) -> bytes:
    """Return a header block, continued as often as it needs."""
    pieces = [headers[at : at + MAX_FRAME_BYTES] for at in range(0, len(headers), MAX_FRAME_BYTES)]
    kinds = [Type.HEADERS, *[Type.CONTINUATION] * (len(pieces) - 1)]
    flags = [*[0] * (len(pieces) - 1), END_HEADERS]
    return b"".join(
        frame(kind, piece, flags=flag, stream=stream) for kind, piece, flag in zip(kinds, pieces, flags, strict=True)
    )


@dataclass(slots=True)
class Answers:
    """What has come back: the status and the other trailers by stream, streams that were reset, and why all ended."""

    statuses: dict[int, str] = field(default_factory=dict[int, str])
    trailers: dict[int, dict[str, str]] = field(default_factory=dict[int, dict[str, str]])
    resets: dict[int, int] = field(default_factory=dict[int, int])
    farewell: bytes | None = None
    is_greeted: bool = False
    is_ponged: bool = False
    is_closed: bool = False

    @property
    def ended(self) -> int:
        """How many streams have come to an end."""
        return len(self.statuses.keys() | self.resets.keys())


class Wire:
    """A connection on which any bytes can be sent."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._decoder = Decoder()
        self._received = b""
        self.answers = Answers()

    def send(self, *pieces: bytes) -> bool:
        """Send bytes; False where nobody takes them any more."""
        try:
            self._socket.sendall(b"".join(pieces))
        except OSError:
            return False
        return True

    def settle(self) -> None:
        """Acknowledge the service's settings, and know that it has seen all that was sent, or has closed."""
        self.answers.is_ponged = False
        self._read_until(lambda answers: answers.is_greeted)
        self.send(frame(Type.PING, b"settled?"))
        self._read_until(lambda answers: answers.is_ponged)

    def read(self, ended: int | None = None) -> Answers:
        """Read until so many streams have ended, or until the service closes the connection."""
        return self._read_until(lambda answers: ended is not None and answers.ended >= ended)

    def read_farewell(self) -> Answers:
        """Read until the service says that it takes no new streams here."""
        return self._read_until(lambda answers: answers.farewell is not None)

    def _read_until(self, is_enough: Callable[[Answers], bool]) -> Answers:
        while not (self.answers.is_closed or is_enough(self.answers)):
            try:
                received = self._socket.recv(65536)
            except ConnectionError:
                received = b""
            if not received:
                self.answers.is_closed = True
            self._received += received
            for kind, flags, stream, payload in self._frames():
                self._note(kind, flags, stream, payload)
        return self.answers

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        while len(self._received) >= 9 + (size := int.from_bytes(self._received[:3])):
            whole, self._received = self._received[: 9 + size], self._received[9 + size :]
            yield whole[3], whole[4], int.from_bytes(whole[5:9]), whole[9:]

    def _note(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        match kind:
            case Type.HEADERS:
                headers = {str(name): str(value) for name, value in self._decoder.decode(payload)}
                if "grpc-status" in headers:
                    self.answers.statuses[stream] = headers["grpc-status"]
                    self.answers.trailers[stream] = headers
            case Type.RST_STREAM:
                self.answers.resets[stream] = int.from_bytes(payload)
            case Type.GOAWAY:
                self.answers.farewell = payload[4:]
            case Type.SETTINGS if not flags & ACK:
                self.answers.is_greeted = True
                self.send(frame(Type.SETTINGS, flags=ACK))
            case Type.PING if not flags & ACK:
                self.send(frame(Type.PING, payload, flags=ACK))
            case Type.PING:
                self.answers.is_ponged = True
            case _:
                pass


@contextmanager
def wired(address: str, opening: bytes = OPENING) -> Generator[Wire]:
    """Connect, and begin as HTTP/2 begins unless told otherwise."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=READ_SECONDS) as connection:
        wire = Wire(connection)
        wire.send(opening)
        yield wire


def string(text: bytes) -> bytes:
    """Return text as HPACK writes it."""
    return _number(len(text), 7) + text


def _number(number: int, bits: int) -> bytes:
    """Return a number as HPACK writes it (RFC 7541, 5.1)."""
    most = (1 << bits) - 1
    if number < most:
        return bytes([number])
    written, number = bytearray([most]), number - most
    while number >= 128:
        written.append(number % 128 + 128)
        number //= 128
    return bytes([*written, number])
