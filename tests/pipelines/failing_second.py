"""A generator that is done, and behind it one that fails."""

from haystack import Pipeline
from haystack.components.builders import PromptBuilder
from haystack.components.generators.chat import MockChatGenerator
from haystack.dataclasses import ChatMessage

from tests.fakes import AsyncFake, stage


def build() -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("first", MockChatGenerator(response_fn=paid_reply))
    pipeline.add_component("prompt", PromptBuilder("{{ replies | length }}", required_variables="*"))
    pipeline.add_component("second", AsyncFake())
    pipeline.connect("first.replies", "prompt.replies")
    pipeline.connect("prompt.prompt", "second.query")
    return pipeline


def paid_reply(messages: list[ChatMessage]) -> ChatMessage:
    stage().proceed.set()
    return ChatMessage.from_assistant("one", meta=stage().meta)
