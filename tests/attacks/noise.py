"""Conversations that went wrong on the way: pieces and bytes of valid ones, flipped, cut, doubled and reordered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haystream.v1 import chat_pb2
from tests.attacks.wire import ACK, END_STREAM, PREFACE, Type, chat, frame, head, in_frames, message_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

PING = b"are you?"
CANCEL = (8).to_bytes(4)

CONVERSATIONS: Sequence[Sequence[bytes]] = (
    (
        PREFACE,
        frame(Type.SETTINGS, b"\0\4\0\1\0\0"),
        frame(Type.WINDOW_UPDATE, (1 << 20).to_bytes(4)),
        frame(Type.SETTINGS, flags=ACK),
        chat(1, "tweet"),
        frame(Type.PING, PING),
        chat(3, "tweet", [(b"x-request-id", b"r-3"), (b"grpc-timeout", b"5S")]),
        frame(Type.RST_STREAM, CANCEL, stream=3),
        chat(5, "tweet"),
        frame(Type.GOAWAY, bytes(8)),
    ),
    (
        PREFACE,
        frame(Type.SETTINGS),
        in_frames(1, head(b"ListPipelines")),
        frame(Type.DATA, message_of(chat_pb2.ListPipelinesRequest()), flags=END_STREAM, stream=1),
        frame(Type.PRIORITY, bytes(5), stream=3),
        in_frames(3, head(b"Cancel")),
        frame(Type.WINDOW_UPDATE, (1 << 10).to_bytes(4), stream=3),
        frame(Type.DATA, message_of(chat_pb2.CancelRequest(run_id="none-such")), flags=END_STREAM, stream=3),
    ),
)

BODY = b'{"query": "tweet", "inputs": {"llm": {"query": "a"}}, "disconnect_grace_seconds": 1}'
JSON = b"Content-Type: application/json\r\n"
REQUESTS: Sequence[Sequence[bytes]] = (
    (b"GET /livez HTTP/1.1\r\n", b"Host: localhost\r\n", b"Accept: */*\r\n", b"\r\n"),
    (b"GET /chat?query=tweet HTTP/1.1\r\n", b"Host: localhost\r\n", b"Last-Event-ID: r:1\r\n", b"\r\n"),
    (b"GET /pipelines HTTP/1.1\r\n", b"Host: localhost\r\n", b"\r\n", b"GET /readyz HTTP/1.1\r\n", b"Host: x\r\n\r\n"),
    (b"POST /chat HTTP/1.1\r\n", b"Host: localhost\r\n", JSON, b"Content-Length: %d\r\n\r\n" % len(BODY), BODY),
    (
        b"POST /chat HTTP/1.1\r\n",
        b"Host: localhost\r\n",
        JSON,
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"%x\r\n" % len(BODY),
        BODY,
        b"\r\n0\r\n\r\n",
    ),
    (b"OPTIONS /v1/models HTTP/1.1\r\n", b"Host: localhost\r\n", b"Origin: https://example.org\r\n", b"\r\n"),
)


def mutated(random: Random, conversations: Sequence[Sequence[bytes]]) -> bytes:
    """Return one of the conversations with up to four mistakes, or random bytes after a beginning that is right."""
    pieces = list(random.choice(conversations))
    if random.random() < 0.1:
        return pieces[0] * random.randrange(2) + random.randbytes(random.randrange(1, 500))
    for _ in range(random.randrange(1, 3)):
        _misplace(random, pieces)
    whole = bytearray(b"".join(pieces))
    for _ in range(random.randrange(3)):
        _misspell(random, whole)
    return bytes(whole)


def _misplace(random: Random, pieces: list[bytes]) -> None:
    """Lose, double or move a piece."""
    at = random.randrange(len(pieces))
    match random.randrange(3):
        case 0 if len(pieces) > 1:
            del pieces[at]
        case 1:
            pieces.insert(random.randrange(len(pieces)), pieces[at])
        case _:
            pieces.insert(random.randrange(len(pieces)), pieces.pop(at))


def _misspell(random: Random, whole: bytearray) -> None:
    """Flip a bit, or cut, double, or overwrite some bytes."""
    at = random.randrange(len(whole))
    to = min(len(whole), at + random.randrange(1, 20))
    match random.randrange(4):
        case 0:
            whole[at] ^= 1 << random.randrange(8)
        case 1 if len(whole) > to - at:
            del whole[at:to]
        case 2:
            whole[at:at] = whole[at:to]
        case _:
            whole[at:to] = random.randbytes(to - at)
