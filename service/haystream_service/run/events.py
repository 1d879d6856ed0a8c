"""What can happen in a run, as plain values."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping


class FinishReason(enum.Enum):
    """Why an answer ends where it does. Later members outweigh earlier ones when several generators differ."""

    STOP = 1
    TOOL_CALLS = 2
    LENGTH = 3
    CONTENT_FILTER = 4
    INCOMPLETE = 5


@dataclass(frozen=True, slots=True)
class Started:
    """The run has begun."""

    run_id: str
    pipeline: str


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer."""

    component: str
    index: int
    delta: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of the model's reasoning."""

    component: str
    index: int
    delta: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A piece of a tool call that the model is writing."""

    component: str
    index: int
    id: str
    name: str
    arguments_delta: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered; of what does not fit into a message the beginning."""

    component: str
    id: str
    name: str
    result: str
    is_error: bool
    is_truncated: bool = False


@dataclass(frozen=True, slots=True)
class Document:
    """A finding; `meta` is JSON-safe. `is_truncated`: content or metadata did not fit, and were cut."""

    id: str
    content: str
    score: float | None
    meta: Mapping[str, Any]
    is_truncated: bool = False


@dataclass(frozen=True, slots=True)
class Documents:
    """What a component has found, best first; more than fit into one event come in several."""

    component: str
    documents: tuple[Document, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """What one component has used of one model, in tokens."""

    component: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The run has come to its own end. The outputs are JSON-safe: component, socket, value."""

    reason: FinishReason
    usage: tuple[Usage, ...] = ()
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, dict[str, Any]])


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that the log no longer holds, first and last number included."""

    from_seq: int
    to_seq: int


# For `isinstance`, on every chunk: a union of the two would be made anew each time, and cost four times as much.
TEXTS = (Text, Reasoning)

Event: TypeAlias = Started | Text | Reasoning | ToolCall | ToolResult | Documents | Finished | Gap


@dataclass(frozen=True, slots=True)
class Entry:
    """An event with its place in the run; a joined event has the place of its last part."""

    seq: int
    event: Event
