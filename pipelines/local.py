"""A small real model, SmolLM2, inside the service: no key, no server; quick, and often wrong."""

from haystack import Pipeline
from haystack.components.builders import ChatPromptBuilder
from haystack.dataclasses import ChatMessage

from haystream_service.local_model import SmolLM2ChatGenerator

TEMPLATE = [
    ChatMessage.from_system("You are a helpful assistant. Answer in a few sentences."),
    ChatMessage.from_user("{{ query }}"),
]


def build() -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("prompt_builder", ChatPromptBuilder(TEMPLATE, required_variables="*"))
    pipeline.add_component("llm", SmolLM2ChatGenerator())
    pipeline.connect("prompt_builder.prompt", "llm.messages")
    return pipeline
