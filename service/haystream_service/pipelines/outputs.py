"""What a pipeline returns, made safe for JSON: its outputs, its usage, and why its answer ends where it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from haystack.dataclasses import ChatMessage, ChatRole

from haystream_service.pipelines.json_values import json_safe
from haystream_service.run.events import Finished, FinishReason, Usage

EXIT_REASON = "exit_reason"  # of an Agent; those of 2.x have none

_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    None: FinishReason.INCOMPLETE,
}


def finished(outputs: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, frozenset[str] | None]) -> Finished:
    """Sum up a run. `wanted` names the components whose outputs the caller sees, and which of them; None: all."""
    reasons = [reason for values in outputs.values() for reason in _reasons(values)]
    return Finished(
        reason=max(reasons, key=lambda reason: reason.value, default=FinishReason.STOP),
        outputs={
            component: {name: json_safe(value) for name, value in values.items() if _is_wanted(name, wanted[component])}
            for component, values in outputs.items()
            if component in wanted
        },
    )


def usages(component: str, values: Mapping[str, Any]) -> Iterator[Usage]:
    """Yield what a component has used, model by model."""
    for meta in _reply_metas(values):
        usage = meta.get("usage")
        if isinstance(usage, Mapping) and usage:
            yield _usage(component, str(meta.get("model") or ""), cast("Mapping[str, Any]", usage))


def _reasons(values: Mapping[str, Any]) -> Iterator[FinishReason]:
    """Yield why each of a component's answers ends; an Agent has one, whatever its model said on the way."""
    if _is_agents(values):
        yield _reason_of_agent(values.get(EXIT_REASON, "text"), values.get("last_message"))
        return
    for meta in _reply_metas(values):
        if "finish_reason" in meta:
            yield _REASONS.get(meta["finish_reason"], FinishReason.STOP)


def _is_agents(values: Mapping[str, Any]) -> bool:
    """Whether outputs are an Agent's, of whichever generation."""
    return EXIT_REASON in values or {"messages", "last_message"} <= values.keys()


def _reason_of_agent(exit_reason: Any, last_message: Any) -> FinishReason:
    match exit_reason:
        case "length" | "content_filter":
            return _REASONS[exit_reason]
        case "max_agent_steps":
            return FinishReason.INCOMPLETE
        case "text" if isinstance(last_message, ChatMessage):
            return _REASONS.get(last_message.meta.get("finish_reason", "stop"), FinishReason.STOP)
        case _:  # a tool that ends the Agent, or a hook
            return FinishReason.STOP


def _is_wanted(name: str, names: frozenset[str] | None) -> bool:
    return names is None or name in names


def _reply_metas(values: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the metadata of each reply: chat generators put it into the reply, others beside the text."""
    for reply in [*(values.get("replies") or ()), *_answers_of_agent(values)]:
        if isinstance(reply, ChatMessage):
            yield reply.meta
    meta = values.get("meta")
    for item in cast("list[Any]", meta) if isinstance(meta, list) else ():
        if isinstance(item, Mapping):
            yield cast("Mapping[str, Any]", item)


def _answers_of_agent(values: Mapping[str, Any]) -> list[ChatMessage]:
    """Return what an Agent's model said in this run: one message a step, after those of the conversation so far."""
    if not _is_agents(values):
        return []
    messages: list[ChatMessage] = list(values.get("messages") or ())
    if EXIT_REASON not in values:  # 2.x counts no steps: they are what follows the newest question
        newest = max((at for at, message in enumerate(messages) if message.is_from(ChatRole.USER)), default=-1)
        return [message for message in messages[newest + 1 :] if message.is_from(ChatRole.ASSISTANT)]
    steps = values.get("step_count", 1)  # an LLM, which is an Agent without tools, has one and does not say so
    answers = [message for message in messages if message.is_from(ChatRole.ASSISTANT)]
    return answers[-steps:] if isinstance(steps, int) and steps >= 1 else []


def _usage(component: str, model: str, usage: Mapping[str, Any]) -> Usage:
    prompt = _count(usage, "prompt_tokens", "input_tokens")
    completion = _count(usage, "completion_tokens", "output_tokens")
    return Usage(component, model, prompt, completion, _count(usage, "total_tokens") or prompt + completion)


def _count(usage: Mapping[str, Any], *names: str) -> int:
    """Return a count under the first of its names that is there; providers have two."""
    return next((value for name in names if isinstance(value := usage.get(name), int)), 0)
