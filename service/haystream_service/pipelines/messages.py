"""From a caller's conversation to Haystack's ChatMessages, with every message named that its role cannot hold."""

from __future__ import annotations

import base64
from itertools import chain
from typing import TYPE_CHECKING, Any

import haystack.dataclasses
from haystack.dataclasses import ChatMessage

from haystream_service.errors import InvalidRequest, Violation, told
from haystream_service.pipelines.call import Image, Message, Role

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from haystream_service.pipelines.call import Call, ToolCall, ToolResult

FIELD = "conversation.messages"

# What a message of each role is made of, of its three fields.
_FIELDS = {
    Role.SYSTEM: {"parts"},
    Role.USER: {"parts"},
    Role.ASSISTANT: {"parts", "tool_calls"},
    Role.TOOL: {"tool_results"},
}


def chat_messages(messages: Sequence[Message]) -> list[ChatMessage]:
    """Return a conversation as Haystack's. Raises InvalidRequest with what is wrong."""
    called = {call.call_id: call for message in messages for call in message.tool_calls}
    if wrong := told(
        chain.from_iterable(_violations(index, message, called) for index, message in enumerate(messages))
    ):
        raise InvalidRequest(*wrong)
    return [converted for message in messages for converted in _converted(message, called)]


def newest_question(call: Call) -> str:
    """Return what a pipeline that takes a question, not a conversation, is asked. Raises InvalidRequest."""
    if not call.messages:
        return call.query
    newest = call.messages[-1]
    text = _text(newest)
    if newest.role is not Role.USER or not text or any(isinstance(part, Image) for part in newest.parts):
        cure = "this pipeline takes one question: the newest message has to be the user's, and plain text"
        raise InvalidRequest(Violation(FIELD, cure))
    return text


def _violations(index: int, message: Message, called: Mapping[str, ToolCall]) -> Iterator[Violation]:
    path = f"{FIELD}[{index}]"
    for name in ("parts", "tool_calls", "tool_results"):
        if getattr(message, name) and name not in _FIELDS[message.role]:
            allowed = " and ".join(sorted(_FIELDS[message.role]))
            yield Violation(f"{path}.{name}", f"a message of ROLE_{message.role.name} has {allowed} only")
    for place, part in enumerate(message.parts):
        if isinstance(part, Image) and (why := _why_no_image(message.role)):
            yield Violation(f"{path}.parts[{place}].image", why)
    yield from _tool_violations(path, message, called)


def _why_no_image(role: Role) -> str:
    if role is not Role.USER:
        return "only messages of ROLE_USER hold images"
    return "" if hasattr(haystack.dataclasses, "ImageContent") else "this service's version of Haystack takes no images"


def _tool_violations(path: str, message: Message, called: Mapping[str, ToolCall]) -> Iterator[Violation]:
    if (message.tool_calls or message.tool_results) and not hasattr(haystack.dataclasses, "ToolCall"):
        yield Violation(path, "this service's version of Haystack knows no tools")
    for place, call in enumerate(message.tool_calls):
        if not call.name:
            yield Violation(f"{path}.tool_calls[{place}].name", "expected the tool's name")
    for place, result in enumerate(message.tool_results):
        if not result.name and result.call_id not in called:
            yield Violation(f"{path}.tool_results[{place}].id", "expected the id of a tool call of this conversation")


def _converted(message: Message, called: Mapping[str, ToolCall]) -> Iterator[ChatMessage]:
    """Return a message as Haystack's: one for each result of a tool's, since providers take no more in one."""
    match message.role:
        case Role.SYSTEM:
            yield ChatMessage.from_system(_text(message))
        case Role.USER:
            yield _from_user(message)
        case Role.ASSISTANT if message.tool_calls:
            calls = [_tool_call(call.call_id, call.name, call.arguments) for call in message.tool_calls]
            yield ChatMessage.from_assistant(_text(message) or None, tool_calls=calls)
        case Role.ASSISTANT:
            yield ChatMessage.from_assistant(_text(message))
        case Role.TOOL:
            for result in message.tool_results:
                yield ChatMessage.from_tool(result.result, _origin(result, called), error=result.is_error)


def _from_user(message: Message) -> ChatMessage:
    if all(isinstance(part, str) for part in message.parts):
        return ChatMessage.from_user(_text(message))
    return ChatMessage.from_user(
        content_parts=[part if isinstance(part, str) else _image(part) for part in message.parts]
    )


def _image(image: Image) -> Any:
    encoded = base64.b64encode(image.data).decode()
    # `requests` and `images` have seen to its media type; looking again would decode it once more.
    return haystack.dataclasses.ImageContent(encoded, mime_type=image.mime_type, validation=False)


def _origin(result: ToolResult, called: Mapping[str, ToolCall]) -> Any:
    call = called.get(result.call_id)
    name = result.name or (call.name if call is not None else "")
    return _tool_call(result.call_id, name, call.arguments if call is not None else {})


def _tool_call(call_id: str, name: str, arguments: Mapping[str, Any]) -> Any:
    return haystack.dataclasses.ToolCall(tool_name=name, arguments=dict(arguments), id=call_id or None)


def _text(message: Message) -> str:
    return "".join(part for part in message.parts if isinstance(part, str))
