"""What a pipeline returns, made safe for JSON: its outputs, its usage, and why its answer ends where it does."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, cast

from haystack.dataclasses import ChatMessage, Document

from haystream_service.pipelines.chunks import encodable
from haystream_service.run.events import Finished, FinishReason, Usage

LARGEST_EXACT_INT = 2**53  # JSON's numbers are doubles to most readers, and a Struct's to all

_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    None: FinishReason.INCOMPLETE,
}


def finished(outputs: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, frozenset[str] | None]) -> Finished:
    """Sum up a run. `wanted` names the components whose outputs the caller sees, and which of them; None: all."""
    metas = [(component, meta) for component, values in outputs.items() for meta in _reply_metas(values)]
    reasons = [_REASONS.get(meta["finish_reason"], FinishReason.STOP) for _, meta in metas if "finish_reason" in meta]
    return Finished(
        reason=max(reasons, key=lambda reason: reason.value, default=FinishReason.STOP),
        usage=tuple(_usage(component, meta) for component, meta in metas if isinstance(meta.get("usage"), Mapping)),
        outputs={
            component: {name: json_safe(value) for name, value in values.items() if _is_wanted(name, wanted[component])}
            for component, values in outputs.items()
            if component in wanted
        },
    )


def json_safe(value: Any) -> Any:  # noqa: PLR0911 - one line per kind of value
    """Return a value as JSON can carry it, in Haystack's own dictionary form where it has one."""
    match value:
        case None | bool():
            return value
        case int():
            return value if abs(value) <= LARGEST_EXACT_INT else str(value)
        case str():
            return encodable(value)
        case float():
            return value if math.isfinite(value) else None
        case Document():
            return json_safe({"id": value.id, "content": value.content, "score": value.score, "meta": value.meta})
        case Mapping():
            return {encodable(str(name)): json_safe(item) for name, item in cast("Mapping[Any, Any]", value).items()}
        case Sequence() | set() | frozenset() if not isinstance(value, bytes | bytearray):
            return [json_safe(item) for item in cast("Collection[Any]", value)]
        case _ if callable(to_dict := getattr(value, "to_dict", None)):
            return json_safe(to_dict())
        case _:
            return f"<{type(value).__name__}>"  # neither its text nor its bytes: both may hold anything


def _is_wanted(name: str, names: frozenset[str] | None) -> bool:
    return names is None or name in names


def _reply_metas(values: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the metadata of each reply: chat generators put it into the reply, others beside the text."""
    for reply in values.get("replies") or ():
        if isinstance(reply, ChatMessage):
            yield reply.meta
    meta = values.get("meta")
    for item in cast("list[Any]", meta) if isinstance(meta, list) else ():
        if isinstance(item, Mapping):
            yield cast("Mapping[str, Any]", item)


def _usage(component: str, meta: Mapping[str, Any]) -> Usage:
    usage = meta["usage"]
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    total = _count(usage, "total_tokens") or prompt + completion
    return Usage(component, str(meta.get("model") or ""), prompt, completion, total)


def _count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) else 0
