"""From the contract's requests to plain values, with every wrong field named."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from google.protobuf.message import Message as ProtoMessage

from haystream.v1 import chat_pb2
from haystream_service.errors import InvalidRequest, Violation
from haystream_service.images import media_type_of
from haystream_service.pipelines.call import Call, Image, Message, Role, ToolCall, ToolResult
from haystream_service.run.run import OnDisconnect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.struct_pb2 import Struct, Value

# What stock gRPC clients and servers take as one message. Larger ones are let in up to the transport's own limit, so
# that they can be refused in words.
MAX_REQUEST_BYTES = 4 * 1024 * 1024
MAX_KEY_LENGTH = 1024

_RUN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
RUN_ID_RULE = "expected 1 to 64 letters, digits, dots, dashes or underscores"
NANOS = 1_000_000_000

_IMAGE_TYPE = re.compile(r"image/[a-z0-9.+-]{1,64}")
_API_KEY = re.compile(r"[\x21-\x7e]*")  # it becomes an HTTP header
_ROLES = {
    chat_pb2.ROLE_SYSTEM: Role.SYSTEM,
    chat_pb2.ROLE_USER: Role.USER,
    chat_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    chat_pb2.ROLE_TOOL: Role.TOOL,
}


def call_of(request: chat_pb2.ChatRequest) -> Call:
    """Return what a request asks. Raises InvalidRequest with all that is wrong."""
    if violations := [*_size_violations(request), *_field_violations(request)]:
        raise InvalidRequest(*violations)
    return Call(
        query=request.query,
        messages=[_message(message) for message in request.conversation.messages],
        inputs=plain(request.inputs),
        generation_kwargs=plain(request.generation_kwargs),
        api_key=request.api_key,
        streaming_components=list(request.streaming_components),
        include_outputs_from=list(request.include_outputs_from),
    )


def request_hash(request: chat_pb2.ChatRequest) -> bytes:
    """Return a hash of what is asked: not of the provider's key, nor of the ways in which to read the run."""
    asked = chat_pb2.ChatRequest()
    asked.CopyFrom(request)
    for name in ("run_id", "api_key", "on_disconnect", "disconnect_grace"):
        asked.ClearField(name)
    return hashlib.sha256(asked.SerializeToString(deterministic=True)).digest()


def on_disconnect_of(request: chat_pb2.ChatRequest) -> OnDisconnect:
    """Return what is to become of the run when nobody reads it."""
    grace = request.disconnect_grace
    return OnDisconnect(
        goes_on=request.on_disconnect == chat_pb2.ON_DISCONNECT_CONTINUE,
        grace_seconds=grace.seconds + grace.nanos / 1e9 if request.HasField("disconnect_grace") else None,
    )


def check_run_id(run_id: str) -> None:
    """Raise InvalidRequest where an id is none that a run can have."""
    if not _RUN_ID.fullmatch(run_id):
        raise InvalidRequest(Violation("run_id", RUN_ID_RULE))


def plain(struct: Struct) -> dict[str, Any]:
    """Return a Struct as a dictionary; whole numbers, which a Struct holds as floats, become ints again."""
    return {name: _plain_value(value) for name, value in struct.fields.items()}


def _plain_value(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return plain(value.struct_value)
        case "list_value":
            return [_plain_value(item) for item in value.list_value.values]
        case _:
            return None


def _size_violations(request: chat_pb2.ChatRequest) -> Iterator[Violation]:
    size = request.ByteSize()
    if size > MAX_REQUEST_BYTES:
        largest, _ = max(request.ListFields(), key=lambda field: _size_of(field[1]))
        why = f"the request has {size} bytes, most of them here; the limit is {MAX_REQUEST_BYTES}"
        yield Violation(largest.name, why)


def _size_of(value: Any) -> int:
    """Return about how much of a message a field takes."""
    if isinstance(value, ProtoMessage):
        return value.ByteSize()
    if isinstance(value, str):
        return len(value)
    return sum(map(len, cast("Sequence[str]", value))) if isinstance(value, Sequence) else 0


def _field_violations(request: chat_pb2.ChatRequest) -> Iterator[Violation]:
    match request.WhichOneof("input"):
        case None:
            yield Violation("query", "set either `query` or `conversation`")
        case "query" if not request.query.strip():
            yield Violation("query", "the question is empty")
        case "conversation":
            yield from _conversation_violations(request.conversation)
        case _:
            pass
    if request.run_id and not _RUN_ID.fullmatch(request.run_id):
        yield Violation("run_id", RUN_ID_RULE)
    if len(request.api_key) > MAX_KEY_LENGTH or not _API_KEY.fullmatch(request.api_key):
        yield Violation("api_key", f"expected at most {MAX_KEY_LENGTH} visible ASCII characters")
    if request.on_disconnect not in chat_pb2.OnDisconnect.values():
        yield Violation("on_disconnect", "expected ON_DISCONNECT_CANCEL or ON_DISCONNECT_CONTINUE")
    if request.HasField("disconnect_grace"):
        yield from _grace_violations(request)
    yield from _number_violations("inputs", request.inputs)
    yield from _number_violations("generation_kwargs", request.generation_kwargs)


def _grace_violations(request: chat_pb2.ChatRequest) -> Iterator[Violation]:
    grace = request.disconnect_grace
    if request.on_disconnect != chat_pb2.ON_DISCONNECT_CONTINUE:
        yield Violation("disconnect_grace", "set `on_disconnect` to ON_DISCONNECT_CONTINUE beside it")
    if grace.seconds < 0 or not 0 <= grace.nanos < NANOS:
        yield Violation("disconnect_grace", "expected a duration that is not negative")


def _number_violations(path: str, struct: Struct) -> Iterator[Violation]:
    for name, value in struct.fields.items():
        yield from _value_violations(f"{path}.{name}", value)


def _value_violations(path: str, value: Value) -> Iterator[Violation]:
    if value.HasField("number_value") and not math.isfinite(value.number_value):
        yield Violation(path, "expected a finite number")
    yield from _number_violations(path, value.struct_value)
    for index, item in enumerate(value.list_value.values):
        yield from _value_violations(f"{path}[{index}]", item)


def _conversation_violations(conversation: chat_pb2.Conversation) -> Iterator[Violation]:
    if not conversation.messages:
        yield Violation("conversation.messages", "the conversation is empty")
    for index, message in enumerate(conversation.messages):
        path = f"conversation.messages[{index}]"
        if message.role not in _ROLES:
            yield Violation(f"{path}.role", "expected ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT or ROLE_TOOL")
        if not (message.parts or message.tool_calls or message.tool_results):
            yield Violation(f"{path}.parts", "the message is empty")
        for place, part in enumerate(message.parts):
            if part.WhichOneof("content") is None:
                yield Violation(f"{path}.parts[{place}]", "set either `text` or `image`")
            elif part.HasField("image"):
                yield from _image_violations(f"{path}.parts[{place}].image", part.image)
        for place, call in enumerate(message.tool_calls):
            yield from _number_violations(f"{path}.tool_calls[{place}].arguments", call.arguments)


def _image_violations(path: str, image: chat_pb2.Image) -> Iterator[Violation]:
    if not (image.data or image.url):
        yield Violation(path, "set either `data` or `url`")
    elif image.mime_type and not _IMAGE_TYPE.fullmatch(image.mime_type):
        yield Violation(f"{path}.mime_type", "expected an image's media type, such as image/png")
    elif image.data and not image.mime_type and media_type_of(image.data) is None:
        yield Violation(f"{path}.mime_type", "this is neither PNG, JPEG, GIF nor WebP: say what it is")


def _message(message: chat_pb2.ChatMessage) -> Message:
    return Message(
        role=_ROLES[message.role],
        parts=[_part(part) for part in message.parts],
        tool_calls=[ToolCall(call.id, call.name, plain(call.arguments)) for call in message.tool_calls],
        tool_results=[
            ToolResult(result.id, result.name, result.result, result.is_error) for result in message.tool_results
        ],
    )


def _part(part: chat_pb2.ContentPart) -> str | Image:
    if part.WhichOneof("content") == "text":
        return part.text
    image = part.image
    return Image(image.data, image.mime_type or media_type_of(image.data) or "", image.url)
