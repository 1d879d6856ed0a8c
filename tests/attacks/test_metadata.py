"""Metadata bombs: too much, too many, malformed, and what can be done with HPACK and CONTINUATION."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

from haystream.v1 import chat_pb2
from tests.attacks.canary import withstood
from tests.attacks.wire import END_STREAM, Type, block, chat, frame, head, in_frames, message_of, string, wired

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.attacks.target import Target
    from tests.attacks.wire import Header

ROUNDS = 2

OK, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = "0", "8", "12", "13", "14"

TOO_MUCH: dict[str, list[Header]] = {
    "many entries": [(b"x-%d" % number, b"v") for number in range(5000)],
    "the same entry often": [(b"x-same", b"v" * 100)] * 1000,
    "just over the limit": [(b"x-long", b"v" * 17_000)],
    "a megabyte": [(b"x-long", b"v" * 1_000_000)],
    "a megabyte of bytes": [(b"x-long-bin", b"dmFs" * 250_000)],
    "more than gRPC's own limit before settings": [(b"x-long", b"v" * 17_000_000)],
}

MALFORMED: dict[str, list[Header]] = {
    "no base64": [(b"x-odd-bin", b"!!!***")],
    "half a base64": [(b"x-odd-bin", b"A")],
    "no name": [(b"", b"v")],
    "no name that can be": [(b"X-Odd \0", b"v")],
    "no deadline": [(b"grpc-timeout", b"soon")],
    "no encoding": [(b"grpc-encoding", b"none such")],
}

HARMLESS: dict[str, list[Header]] = {
    "bytes that are no text": [(b"x-request-id", b"\xff\xfe"), (b"x-odd", b"\0\x01")],
    "a deadline in the far future": [(b"grpc-timeout", b"99999999H")],
}

HEAD = head()
ASKED = frame(Type.DATA, message_of(chat_pb2.ChatRequest(query="tweet")), flags=END_STREAM, stream=1)
INSERT = b"\x40"  # into HPACK's dynamic table
FIRST_INSERTED = b"\xbe"  # one byte that stands for a whole entry

COMPRESSED: dict[str, bytes] = {
    "a bomb of references": HEAD + INSERT + string(b"x-long") + string(b"v" * 4000) + FIRST_INSERTED * 15_000,
    "many insertions": HEAD + b"".join(INSERT + string(b"x-%d" % number) + string(b"v") for number in range(10_000)),
    "many table sizes": b"\x20" * 10_000 + HEAD,
    "a table too large": b"\x3f\xff\xff\xff\xff\x07" + HEAD,
    "an entry that is not there": HEAD + b"\xff\x80\x80\x80\x01",
    "a number without an end": HEAD + b"\xff" * 2000,
    "a value longer than the block": HEAD + b"\x10" + string(b"x-long") + b"\x7f\xff\xff\xff\x07",
}

CONTINUED: dict[str, bytes] = {
    "with nothing": frame(Type.CONTINUATION, stream=1) * 10_000,
    "with an entry each": frame(Type.CONTINUATION, block([(b"x-a", b"v")]), stream=1) * 10_000,
    "with 16 KB each": frame(Type.CONTINUATION, block([(b"x-a", b"v" * 16_000)]), stream=1) * 1000,
}


async def test_too_much_metadata_is_refused(attacked: Target) -> None:
    """With RESOURCE_EXHAUSTED; also of a peer that does not acknowledge the settings, whom gRPC holds to no limit."""
    await _withstood(attacked, [chat(1, "tweet", headers) for headers in TOO_MUCH.values()], {RESOURCE_EXHAUSTED})


async def test_malformed_metadata_are_refused(attacked: Target) -> None:
    """By gRPC itself, which calls that INTERNAL."""
    await _withstood(attacked, [chat(1, "tweet", headers) for headers in MALFORMED.values()], {INTERNAL})


async def test_odd_metadata_do_no_harm(attacked: Target) -> None:
    """Where nobody needs to understand them."""
    await _withstood(attacked, [chat(1, "tweet", headers) for headers in HARMLESS.values()], {OK})


async def test_a_path_that_is_no_text_ends_nothing(attacked: Target) -> None:
    """One such call would end gRPC's own server; it is told that there is no such method, as any other."""
    nowhere = [in_frames(1, head(name)) + ASKED for name in (b"None such", b"\xff\xfe", b"\0")]
    await _withstood(attacked, nowhere, {UNIMPLEMENTED})


async def test_compressed_bombs_do_not_unfold(attacked: Target) -> None:
    """A few bytes of HPACK stand for megabytes; they are refused while they are counted."""
    bombs = [in_frames(1, headers) + ASKED for headers in COMPRESSED.values()]
    await _withstood(attacked, bombs, {RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE})


async def test_heads_without_an_end_are_cut_off(attacked: Target) -> None:
    """CONTINUATION after CONTINUATION, with something in them or nothing."""
    bombs = [frame(Type.HEADERS, HEAD, stream=1) + frames for frames in CONTINUED.values()]
    await _withstood(attacked, bombs, {RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE, None})


async def _withstood(attacked: Target, bombs: Sequence[bytes], codes: set[str | None]) -> None:
    """Send each of the bombs before and after the settings are acknowledged, to be refused with one of the codes.

    Where the connection is closed over it, that is an answer, too; and so is a stream that is reset where None is one
    of the codes. gRPC takes its time for refusals, on purpose, so all are sent before the first is read.
    """

    def attack() -> None:
        with ExitStack() as stack:
            wires = [stack.enter_context(wired(attacked.service.address)) for _ in (*bombs, *bombs)]
            for number, (wire, bomb) in enumerate(zip(wires, [*bombs, *bombs], strict=True)):
                if number < len(bombs):
                    wire.settle()
                wire.send(bomb)
            for wire in wires:
                answers = wire.read(1)
                assert answers.is_closed or answers.statuses.get(1) in codes

    await withstood(attacked, lambda _: asyncio.to_thread(attack), rounds=ROUNDS)
