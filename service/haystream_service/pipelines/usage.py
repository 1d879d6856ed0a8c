"""How many tokens a run has used: what makes a generator tell, where it does so only on request, and the sums."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from haystream_service.run.events import Usage

OPENAI_MODULES = "haystack.components.generators."
OPENAI_CLASSES = frozenset(
    {"OpenAIChatGenerator", "AzureOpenAIChatGenerator", "OpenAIGenerator", "AzureOpenAIGenerator"}
)


def usage_options(component: Any) -> Mapping[str, Any]:
    """Return the generation settings that ask for usage while the component streams; empty where none are needed.

    OpenAI's API: https://platform.openai.com/docs/api-reference/chat/create#chat-create-stream_options. Classes that
    inherit from Haystack's speak to servers which may refuse a setting that they do not know, so they are not asked.
    """
    generator: Any = getattr(component, "chat_generator", component)  # an Agent's
    name, module = type(generator).__name__, type(generator).__module__
    if name not in OPENAI_CLASSES or not module.startswith(OPENAI_MODULES):
        return {}
    if "stream_options" in (generator.generation_kwargs or {}):
        return {}
    return {"stream_options": {"include_usage": True}}


def summed(usages: Iterable[Usage]) -> list[Usage]:
    """Return the sums per component and model."""
    sums: dict[tuple[str, str], Usage] = {}
    for usage in usages:
        before = sums.get((usage.component, usage.model))
        sums[usage.component, usage.model] = usage if before is None else _added(before, usage)
    return list(sums.values())


def _added(before: Usage, more: Usage) -> Usage:
    return replace(
        more,
        prompt_tokens=before.prompt_tokens + more.prompt_tokens,
        completion_tokens=before.completion_tokens + more.completion_tokens,
        total_tokens=before.total_tokens + more.total_tokens,
    )
