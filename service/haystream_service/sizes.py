"""How much a request may bring. What is within these bounds can be looked at without holding up the other callers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haystream_service.errors import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from google.protobuf.descriptor import Descriptor

    from haystream.v1 import chat_pb2

# What stock gRPC clients and servers take as one message. Larger ones are let in up to the transport's own limit, so
# that they can be refused in words.
MAX_REQUEST_BYTES = 4 * 1024 * 1024

MAX_NAMES = 100  # of components, in each of the fields that lists some
MAX_PARTS = 100  # of a message; and as many tool calls, and results
MAX_PARTS_IN_ALL = 10_000  # parts, calls and results of all messages


# Of a request that is too long: how many fields are looked at, and how they are written.
MAX_FIELDS_LOOKED_AT = 64
VARINT, LENGTH_DELIMITED = 0, 2
MAX_VARINT_BYTES = 10


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What an operator sets of it: the bytes of a text, and the messages of a conversation."""

    text_bytes: int
    messages: int


def size_violations(request: chat_pb2.ChatRequest, limits: RequestLimits) -> Iterator[Violation]:
    """Name what is too large. The first that is found may be all that is named."""
    yield from _text_violations("query", request.query, limits.text_bytes)
    yield from _count_violations("streaming_components", request.streaming_components, MAX_NAMES)
    yield from _count_violations("include_outputs_from", request.include_outputs_from, MAX_NAMES)
    yield from _conversation_violations(request.conversation.messages, limits)


def _conversation_violations(messages: Sequence[chat_pb2.ChatMessage], limits: RequestLimits) -> Iterator[Violation]:
    path = "conversation.messages"
    if len(messages) > limits.messages:
        yield from _count_violations(path, messages, limits.messages)
        return
    parts = sum(len(message.parts) + len(message.tool_calls) + len(message.tool_results) for message in messages)
    if parts > MAX_PARTS_IN_ALL:
        cure = f"expected at most {MAX_PARTS_IN_ALL} parts, tool calls and results in all; these are {parts}"
        yield Violation(path, cure)
        return
    for index, message in enumerate(messages):
        yield from _message_violations(f"{path}[{index}]", message, limits.text_bytes)


def _message_violations(path: str, message: chat_pb2.ChatMessage, text_bytes: int) -> Iterator[Violation]:
    yield from _count_violations(f"{path}.parts", message.parts, MAX_PARTS)
    yield from _count_violations(f"{path}.tool_calls", message.tool_calls, MAX_PARTS)
    yield from _count_violations(f"{path}.tool_results", message.tool_results, MAX_PARTS)
    for place, part in enumerate(message.parts):
        yield from _text_violations(f"{path}.parts[{place}].text", part.text, text_bytes)
    for place, result in enumerate(message.tool_results):
        yield from _text_violations(f"{path}.tool_results[{place}].result", result.result, text_bytes)


def _count_violations(path: str, items: Sequence[object], limit: int) -> Iterator[Violation]:
    if len(items) > limit:
        yield Violation(path, f"expected at most {limit}; these are {len(items)}")


def _text_violations(path: str, text: str, limit_bytes: int) -> Iterator[Violation]:
    """Encode only what may be too long: a character has four bytes at most."""
    if len(text) * 4 > limit_bytes and (size := len(text.encode())) > limit_bytes:
        yield Violation(path, f"expected at most {limit_bytes} bytes of text; it has {size}")


def largest_field(kind: Descriptor, message: bytes) -> str:
    """Return which field takes most of a message that is too long to be parsed. `kind` is what it should be.

    Looks at the first fields alone, from one to the next (https://protobuf.dev/programming-guides/encoding): where they
    are more than that, or no message, it is the request as a whole.
    """
    names = {field.number: field.name for field in kind.fields}
    sizes: Counter[str] = Counter()
    place = 0
    for _ in range(MAX_FIELDS_LOOKED_AT):
        tag, place = _varint(message, place)
        number, place = _varint(message, place)  # the field's own, or the length of what follows
        if not tag or tag & 7 not in {VARINT, LENGTH_DELIMITED}:
            break
        if tag & 7 == LENGTH_DELIMITED:
            sizes[names.get(tag >> 3, "request")] += number
            place += number
    return sizes.most_common(1)[0][0] if sizes and place == len(message) else "request"


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """Return a number and where the next one is; zero at the message's end."""
    number = 0
    for shift, byte in enumerate(message[place : place + MAX_VARINT_BYTES]):
        number |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a number
            return number, place + shift + 1
    return 0, place
