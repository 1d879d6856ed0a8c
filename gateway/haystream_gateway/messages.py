"""The messages of a chat as browsers and OpenAI's clients write them, turned into the contract's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from haystream.v1 import chat_pb2
from haystream_gateway.problems import invalid
from haystream_gateway.sizes import MAX_PARTS, MAX_TOOL_CALLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haystream_gateway.structs import Structs

_ROLES = {
    "system": chat_pb2.ROLE_SYSTEM,
    "developer": chat_pb2.ROLE_SYSTEM,
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
    "tool": chat_pb2.ROLE_TOOL,
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageUrl(_Strict):
    """Where a picture is: by `https:`, `http:` or `data:`. The service fetches it."""

    url: Annotated[str, Field(min_length=1, examples=["data:image/png;base64,iVBORw0KGgo="])]
    detail: str | None = None


class Part(_Strict):
    """A piece of a message: `text`, or a picture's `image_url`."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None


class Function(_Strict):
    """What an assistant has called."""

    name: str
    arguments: Annotated[str, Field(description="A JSON object, as text.", examples=['{"city": "Berlin"}'])] = "{}"


class ToolCall(_Strict):
    """A call that an assistant has made."""

    id: str = ""
    type: Literal["function"] = "function"
    function: Function


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


Parts: TypeAlias = Annotated[list[Part], Field(max_length=MAX_PARTS, fail_fast=True)]
Content: TypeAlias = Annotated[
    Parts | None,
    BeforeValidator(_as_parts, json_schema_input_type=str | Parts | None),
    Field(description="Text, or a list of texts and pictures.", examples=["Why is the sky blue?"]),
]


class Message(_Strict):
    """One turn of a chat, in the form of OpenAI's."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOL_CALLS, fail_fast=True)] | None = None
    tool_call_id: Annotated[str, Field(description="The call that a tool's message answers.")] = ""
    name: Annotated[str, Field(description="The tool's name, where no earlier message has its call.")] = ""


def conversation_of(messages: Sequence[Message], structs: Structs) -> chat_pb2.Conversation:
    """Return messages as the contract has them. Raises Rejection that names what is wrong."""
    conversation = chat_pb2.Conversation()
    names: dict[str, str] = {}  # of the tools, by the id of their call
    for index, message in enumerate(messages):
        path = f"messages.{index}"
        turn = conversation.messages.add(role=_ROLES[message.role])
        if message.role == "tool":
            _fill_result(turn.tool_results.add(), message, names, path)
            continue
        for place, part in enumerate(message.content or ()):
            _fill_part(turn.parts.add(), part, f"{path}.content.{place}")
        for place, call in enumerate(message.tool_calls or ()):
            names[call.id] = call.function.name
            target = turn.tool_calls.add(id=call.id, name=call.function.name)
            field = f"{path}.tool_calls.{place}.function.arguments"
            structs.fill_from_text(target.arguments, field, call.function.arguments or "{}")
    return conversation


def _fill_part(target: chat_pb2.ContentPart, part: Part, path: str) -> None:
    if part.type == "text" and part.text is not None:
        target.text = part.text
    elif part.type == "image_url" and part.image_url is not None:
        target.image.url = part.image_url.url
    else:
        raise invalid((f"{path}.{part.type}", f"a part of type {part.type} needs it"))


def _fill_result(result: chat_pb2.ToolCallResult, message: Message, names: dict[str, str], path: str) -> None:
    parts = message.content or []
    for place, part in enumerate(parts):
        if part.text is None:
            raise invalid((f"{path}.content.{place}", "a tool's message is text"))
    result.id = message.tool_call_id
    result.name = names.get(message.tool_call_id, message.name)
    result.result = "".join(part.text or "" for part in parts)
