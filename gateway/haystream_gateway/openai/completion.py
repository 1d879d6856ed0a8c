"""From the contract's events to one completion, within a bound."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from fastapi_openai_compat import ChatCompletion, Choice, Message

from haystream.v1 import chat_pb2
from haystream_gateway.frames import documents_of, json_of
from haystream_gateway.openai.ending import EXTRAS, ending_extras, finish_reason, usage, usage_by_component
from haystream_gateway.openai.tool_calls import ToolCalls
from haystream_gateway.problems import Code, Problem, Rejection

if TYPE_CHECKING:
    from haystream_gateway.openai.tool_calls import NumberedCall
    from haystream_gateway.streams import RunStream

MAX_COMPLETION_BYTES = 16 * 1024 * 1024

COMPLETION_TOO_LARGE = Problem(
    Code.FAILED_PRECONDITION,
    "COMPLETION_TOO_LARGE",
    f"stream: an answer of more than {MAX_COMPLETION_BYTES} bytes has to be streamed",
)


async def completion_of(stream: RunStream, model: str) -> dict[str, Any]:
    """Read a whole run. Raises Rejection where it grows too large, and where it has failed."""
    said = Said()
    finished = chat_pb2.Finished()
    async with aclosing(stream.events()) as events:
        async for event in events:
            said.take(event)
            finished = event.finished  # that of the last one
    return _completion(stream.run_id, model, said, finished).model_dump(exclude_unset=True)


class Said:
    """What a run has said so far."""

    def __init__(self) -> None:
        self.reasoning: list[str] = []
        self.tool_results: list[dict[str, Any]] = []
        self.documents: list[dict[str, Any]] = []
        self.gaps: list[dict[str, int]] = []
        self._texts: dict[str, list[str]] = {}
        self._calls: dict[NumberedCall, list[str]] = {}
        self._answered: set[NumberedCall] = set()
        self._numbers = ToolCalls()
        self._bytes = 0

    def take(self, event: chat_pb2.Event) -> None:
        """Take an event. Raises Rejection where that would be too much."""
        kind = event.WhichOneof("kind")
        if kind not in {"heartbeat", "finished"}:  # neither is kept
            self._bytes += event.ByteSize()
        if self._bytes > MAX_COMPLETION_BYTES:
            raise Rejection(COMPLETION_TOO_LARGE)
        match kind:
            case "text":
                self._texts.setdefault(event.text.component, []).append(event.text.delta)
            case "reasoning":
                self.reasoning.append(event.reasoning.delta)
            case "tool_call":
                call, _ = self._numbers.take(event.tool_call)
                self._calls.setdefault(call, []).append(event.tool_call.arguments_delta)
            case "tool_result":
                self._answered.update(self._numbers.close(event.tool_result))
                self.tool_results.append(json_of(event.tool_result))
            case "documents":
                self.documents.append(documents_of(event.documents))
            case "gap":
                self.gaps.append({"from_seq": event.gap.from_seq, "to_seq": event.gap.to_seq})
            case _:
                pass

    @property
    def is_silent(self) -> bool:
        """Whether nothing was said."""
        return not (self._texts or self.reasoning or self._calls)

    @property
    def text(self) -> str:
        """The text: of several components one after the other, in the order in which they began."""
        return "\n\n".join(map("".join, self._texts.values()))

    @property
    def text_by_component(self) -> dict[str, str]:
        """The text of each component, where several have spoken."""
        return {name: "".join(deltas) for name, deltas in self._texts.items()} if len(self._texts) > 1 else {}

    def tool_calls(self, *, are_answered: bool) -> list[dict[str, Any]]:
        """Return the calls that the run has answered itself, or the others."""
        return [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": "".join(arguments)}}
            for call, arguments in self._calls.items()
            if (call in self._answered) is are_answered
        ]


def _completion(run_id: str, model: str, said: Said, finished: chat_pb2.Finished) -> ChatCompletion:
    reason = finish_reason(finished)
    open_calls = said.tool_calls(are_answered=False)
    asked, own = (open_calls, []) if reason == "tool_calls" else ([], open_calls)
    message = Message(role="assistant", content=said.text or (None if asked else ""), refusal=None)
    if asked:
        message.tool_calls = asked
    if said.reasoning:
        message.reasoning_content = "".join(said.reasoning)
    extras = {
        "tool_calls": said.tool_calls(are_answered=True) + own,
        "tool_results": said.tool_results,
        "documents": said.documents,
        "gaps": said.gaps,
        "text": said.text_by_component,
        "usage": usage_by_component(finished),
        **ending_extras(finished, is_silent=said.is_silent),
    }
    completion = ChatCompletion(
        id=f"chatcmpl-{run_id}",
        object="chat.completion",
        created=int(time.time()),
        model=model,
        choices=[Choice(index=0, message=message, finish_reason=reason, logprobs=None)],
        usage=usage(finished),
    )
    setattr(completion, EXTRAS, {"run_id": run_id} | {name: value for name, value in extras.items() if value})
    return completion
