"""Says the question back, word by word; needs nothing, for trying and for tests."""

from haystack import Pipeline
from haystack.components.builders import ChatPromptBuilder
from haystack.components.generators.chat import MockChatGenerator
from haystack.dataclasses import ChatMessage


def build() -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component(
        "prompt_builder", ChatPromptBuilder([ChatMessage.from_user("{{ query }}")], required_variables="*")
    )
    pipeline.add_component("llm", MockChatGenerator())
    pipeline.connect("prompt_builder.prompt", "llm.messages")
    return pipeline
