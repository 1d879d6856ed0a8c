"""From the contract's events to OpenAI's chunks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from haystream_gateway.frames import documents_of, json_of
from haystream_gateway.openai.ending import EXTRAS, ending_extras, finish_reason, usage, usage_by_component
from haystream_gateway.openai.tool_calls import ToolCalls
from haystream_gateway.sse import KEEP_ALIVE, frame

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable

    from haystream.v1 import chat_pb2
    from haystream_gateway.openai.ending import FinishReason

    Chunk = dict[str, Any]


# OpenAI's events are data alone, and the last one is no JSON.
DONE = b"data: [DONE]\n\n"


async def chunk_frames(
    run_id: str, events: AsyncIterable[chat_pb2.Event], *, model: str, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    """Yield a run as chunks, and `[DONE]` after its own end; heartbeats as comments."""
    chunks = Chunks(run_id, model, include_usage=include_usage)
    yield frame("", chunks.first())
    async for event in events:
        if event.HasField("heartbeat"):
            yield KEEP_ALIVE
        for chunk in chunks.of(event):
            yield frame("", chunk)
        if event.HasField("finished"):
            yield DONE


class Chunks:
    """Tells a run chunk by chunk. What OpenAI has no place for goes beside `choices`, into `haystream`."""

    def __init__(self, run_id: str, model: str, *, include_usage: bool) -> None:
        self._run_id = run_id
        self._include_usage = include_usage
        self._head = {
            "id": f"chatcmpl-{run_id}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._calls = ToolCalls()
        self._speaker = ""

    def first(self) -> Chunk:
        """Return the chunk that says who speaks, and which run it is."""
        return self._chunk({"role": "assistant", "content": ""}, {"run_id": self._run_id})

    def of(self, event: chat_pb2.Event) -> list[Chunk]:  # noqa: PLR0911 - one return per kind
        """Return what an event says; nothing where that is for others."""
        match event.WhichOneof("kind"):
            case "text":
                return [self._said(event.text.component, {"content": event.text.delta})]
            case "reasoning":
                return [self._said(event.reasoning.component, {"reasoning_content": event.reasoning.delta})]
            case "tool_call":
                return [self._said(event.tool_call.component, {"tool_calls": [self._called(event.tool_call)]})]
            case "tool_result":
                self._calls.close(event.tool_result)
                return [self._chunk({}, {"tool_result": json_of(event.tool_result)})]
            case "documents":
                return [self._chunk({}, {"documents": documents_of(event.documents)})]
            case "gap":
                return [self._chunk({}, {"gap": {"from_seq": event.gap.from_seq, "to_seq": event.gap.to_seq}})]
            case "finished":
                return self._end(event.finished)
            case _:
                return []

    def _said(self, speaker: str, delta: dict[str, Any]) -> Chunk:
        """Return a chunk with words; whenever another component speaks it says which."""
        if speaker == self._speaker:
            return self._chunk(delta)
        self._speaker = speaker
        return self._chunk(delta, {"component": speaker})

    def _called(self, piece: chat_pb2.ToolCallDelta) -> dict[str, Any]:
        call, is_new = self._calls.take(piece)
        if not is_new:  # whoever joins the pieces would join what is repeated, too
            return {"index": call.index, "function": {"arguments": piece.arguments_delta}}
        function = {"name": call.name, "arguments": piece.arguments_delta}
        return {"index": call.index, "id": call.id, "type": "function", "function": function}

    def _end(self, finished: chat_pb2.Finished) -> list[Chunk]:
        last = self._chunk({}, ending_extras(finished, is_silent=not self._speaker), finish_reason(finished))
        if not self._include_usage:
            return [last]
        by_component = {EXTRAS: {"usage": usage_by_component(finished)}}
        return [last, {**self._head, "choices": [], "usage": usage(finished), **by_component}]

    def _chunk(
        self, delta: dict[str, Any], extras: dict[str, Any] | None = None, reason: FinishReason | None = None
    ) -> Chunk:
        chunk: Chunk = {**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        if self._include_usage:
            chunk["usage"] = None  # as OpenAI does it: all chunks have the field, and the last one its value
        if extras:
            chunk[EXTRAS] = extras
        return chunk
