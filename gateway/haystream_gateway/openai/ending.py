"""How a run has ended, as a completion tells it."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from haystream.v1 import chat_pb2
from haystream_gateway.frames import plain

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]

# The name under which chunks and completions carry what OpenAI has no place for. Its clients keep it, others ignore it.
EXTRAS = "haystream"

# An answer that its provider ended without saying why may be cut short, and must not look complete.
_REASONS: dict[int, FinishReason] = {
    chat_pb2.FINISH_REASON_STOP: "stop",
    chat_pb2.FINISH_REASON_TOOL_CALLS: "tool_calls",
    chat_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
    chat_pb2.FINISH_REASON_LENGTH: "length",
}
_CUT_SHORT: FinishReason = "length"


def finish_reason(finished: chat_pb2.Finished) -> FinishReason:
    """Return OpenAI's word for the reason of an ending."""
    return _REASONS.get(finished.reason, _CUT_SHORT)


def usage(finished: chat_pb2.Finished) -> dict[str, int]:
    """Return what all components of a run have used together, as far as their providers tell."""
    return {
        "prompt_tokens": sum(usage.prompt_tokens for usage in finished.usage),
        "completion_tokens": sum(usage.completion_tokens for usage in finished.usage),
        "total_tokens": sum(usage.total_tokens for usage in finished.usage),
    }


def usage_by_component(finished: chat_pb2.Finished) -> list[dict[str, Any]]:
    """Return what each component has used of each model."""
    return [
        {
            "component": usage.component,
            "model": usage.model,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
        }
        for usage in finished.usage
    ]


def ending_extras(finished: chat_pb2.Finished, *, is_silent: bool) -> dict[str, Any]:
    """Return what else there is to say: the reason where OpenAI has no word for it.

    Of a run that said nothing the outputs are the answer; else they would only repeat it.
    """
    extras: dict[str, Any] = {}
    if finished.reason not in _REASONS:
        extras["reason"] = chat_pb2.FinishReason.Name(finished.reason).removeprefix("FINISH_REASON_")
    if is_silent:
        extras["outputs"] = plain(finished.outputs)
        if finished.omitted_outputs:
            extras["omitted_outputs"] = list(finished.omitted_outputs)
    return extras
