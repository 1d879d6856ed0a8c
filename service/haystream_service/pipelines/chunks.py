"""From Haystack's StreamingChunk to the run's events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haystream_service.run.events import Reasoning, Text, ToolCall, ToolResult

if TYPE_CHECKING:
    from haystack.dataclasses import StreamingChunk

    from haystream_service.run.events import Event

PIECE_CHARACTERS = 256 * 1024  # at most 1 MiB in UTF-8


def events_of(chunk: StreamingChunk, component: str) -> list[Event]:
    """Return what a chunk says; nothing for those that only carry a provider's bookkeeping."""
    index = chunk.index or 0
    if content := chunk.content:
        return [Text(component, index, piece) for piece in _pieces(encodable(content))]
    if chunk.reasoning:
        return [Reasoning(component, index, piece) for piece in _pieces(encodable(chunk.reasoning.reasoning_text))]
    if chunk.tool_call_result:
        result = chunk.tool_call_result
        text = result.result if isinstance(result.result, str) else str(result.result)
        return [ToolResult(component, result.origin.id or "", result.origin.tool_name, encodable(text), result.error)]
    return [
        ToolCall(component, call.index, call.id or "", call.tool_name or "", encodable(call.arguments or ""))
        for call in chunk.tool_calls or ()
    ]


def _pieces(text: str) -> list[str]:
    """Cut text that would not fit into one message; what a model says at once nearly always does."""
    if len(text) <= PIECE_CHARACTERS:
        return [text]
    return [text[start : start + PIECE_CHARACTERS] for start in range(0, len(text), PIECE_CHARACTERS)]


def encodable(text: str) -> str:
    """Return text that UTF-8 can carry. Half a surrogate pair, which some providers cut an emoji into, becomes `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
