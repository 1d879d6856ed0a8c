"""From Haystack's StreamingChunk to the run's events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from haystream_service.pipelines.json_values import encodable, json_safe
from haystream_service.run.events import Reasoning, Text, ToolCall, ToolResult

if TYPE_CHECKING:
    from haystack.dataclasses import StreamingChunk, ToolCallResult

    from haystream_service.run.events import Event

PIECE_CHARACTERS = 256 * 1024  # at most 1 MiB in UTF-8


def events_of(chunk: StreamingChunk, component: str) -> list[Event]:
    """Return what a chunk says; nothing for those that only carry a provider's bookkeeping."""
    index = getattr(chunk, "index", None) or 0  # older generations of Haystack have content and meta alone
    if content := chunk.content:
        return [Text(component, index, piece) for piece in _pieces(encodable(content))]
    if not hasattr(chunk, "tool_calls"):
        return []
    if reasoning := getattr(chunk, "reasoning", None):
        return [Reasoning(component, index, piece) for piece in _pieces(encodable(reasoning.reasoning_text))]
    if chunk.tool_call_result:
        return [_tool_result(component, chunk.tool_call_result)]
    return [
        ToolCall(component, call.index, call.id or "", call.tool_name or "", piece)
        for call in chunk.tool_calls or ()
        for piece in _pieces(encodable(call.arguments or ""))
    ]


def _tool_result(component: str, answer: ToolCallResult) -> ToolResult:
    """Return what a tool answered, cut where it would not fit into one message; images and the like as JSON."""
    text = encodable(answer.result if isinstance(answer.result, str) else json.dumps(json_safe(answer.result)))
    is_truncated = len(text) > PIECE_CHARACTERS
    origin = answer.origin
    return ToolResult(component, origin.id or "", origin.tool_name, text[:PIECE_CHARACTERS], answer.error, is_truncated)


def _pieces(text: str) -> list[str]:
    """Cut text that would not fit into one message; what a model says at once nearly always does."""
    if len(text) <= PIECE_CHARACTERS:
        return [text]
    return [text[start : start + PIECE_CHARACTERS] for start in range(0, len(text), PIECE_CHARACTERS)]
