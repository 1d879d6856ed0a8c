"""What a caller asks of a pipeline, in plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Role(Enum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Image:
    """A picture: its bytes, or the address that they are yet to be fetched from."""

    data: bytes = field(default=b"", repr=False)
    mime_type: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that an assistant's message makes."""

    call_id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered."""

    call_id: str
    name: str
    result: str
    is_error: bool


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat. `parts` are text and images, in order."""

    role: Role
    parts: Sequence[str | Image] = ()
    tool_calls: Sequence[ToolCall] = ()
    tool_results: Sequence[ToolResult] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """One request's wishes. `messages` are empty where the caller asks a plain `query`."""

    query: str = ""
    messages: Sequence[Message] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    generation_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    api_key: str = field(default="", repr=False)
    streaming_components: Sequence[str] = ()
    include_outputs_from: Sequence[str] = ()
