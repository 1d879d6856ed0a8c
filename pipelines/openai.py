"""Answers with OpenAI, or with whatever OPENAI_BASE_URL points at, on your key or on the caller's."""

from haystack import Pipeline
from haystack.components.builders import PromptBuilder
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.utils import Secret

TEMPLATE = "Answer the question.\nQuestion: {{ question }}\nAnswer:"


def build(api_key: Secret | None = None) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("prompt_builder", PromptBuilder(TEMPLATE, required_variables="*"))
    pipeline.add_component(
        "llm",
        OpenAIChatGenerator(
            api_key=api_key or Secret.from_env_var("OPENAI_API_KEY"),
            generation_kwargs={"stream_options": {"include_usage": True}},
        ),
    )
    pipeline.connect("prompt_builder.prompt", "llm.messages")
    return pipeline
