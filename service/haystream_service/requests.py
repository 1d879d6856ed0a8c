"""From the contract's requests to plain values, with every wrong field named."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from haystream.v1 import chat_pb2
from haystream_service.errors import InvalidRequest, Violation, told
from haystream_service.images import media_type_of
from haystream_service.pipelines.call import Call, Image, Message, Role, ToolCall, ToolResult
from haystream_service.run.run import OnDisconnect
from haystream_service.sizes import size_violations
from haystream_service.structs import StructCheck, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haystream_service.sizes import RequestLimits

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


def call_of(request: chat_pb2.ChatRequest, limits: RequestLimits) -> Call:
    """Return what a request asks. Raises InvalidRequest with what is too large, or else what is wrong."""
    if violations := told(size_violations(request, limits)) or told(_field_violations(request)):
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


def _field_violations(request: chat_pb2.ChatRequest) -> Iterator[Violation]:
    structs = StructCheck()
    match request.WhichOneof("input"):
        case None:
            yield Violation("query", "set either `query` or `conversation`")
        case "query" if not request.query.strip():
            yield Violation("query", "the question is empty")
        case "conversation":
            yield from _conversation_violations(request.conversation, structs)
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
    yield from structs.violations("inputs", request.inputs)
    yield from structs.violations("generation_kwargs", request.generation_kwargs)


def _grace_violations(request: chat_pb2.ChatRequest) -> Iterator[Violation]:
    grace = request.disconnect_grace
    if request.on_disconnect != chat_pb2.ON_DISCONNECT_CONTINUE:
        yield Violation("disconnect_grace", "set `on_disconnect` to ON_DISCONNECT_CONTINUE beside it")
    if grace.seconds < 0 or not 0 <= grace.nanos < NANOS:
        yield Violation("disconnect_grace", "expected a duration that is not negative")


def _conversation_violations(conversation: chat_pb2.Conversation, structs: StructCheck) -> Iterator[Violation]:
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
            yield from structs.violations(f"{path}.tool_calls[{place}].arguments", call.arguments)


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
