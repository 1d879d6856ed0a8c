"""What makes a generator tell how many tokens it used, where it does so only on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haystack.components.agents import Agent
from haystack.components.generators.chat import AzureOpenAIChatGenerator, OpenAIChatGenerator

if TYPE_CHECKING:
    from collections.abc import Mapping


def usage_options(component: Any) -> Mapping[str, Any]:
    """Return the generation settings that ask for usage while the component streams; empty where none are needed.

    OpenAI's API: https://platform.openai.com/docs/api-reference/chat/create#chat-create-stream_options. Classes that
    inherit from Haystack's speak to servers which may refuse a setting that they do not know, so they are not asked.
    """
    generator: Any = component.chat_generator if isinstance(component, Agent) else component
    if type(generator) not in (OpenAIChatGenerator, AzureOpenAIChatGenerator):
        return {}
    if "stream_options" in (generator.generation_kwargs or {}):
        return {}
    return {"stream_options": {"include_usage": True}}
