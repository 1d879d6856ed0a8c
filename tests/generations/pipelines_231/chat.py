"""OpenAI's chat model alone, which takes a whole conversation, on a Pipeline that blocks."""

from haystack import Pipeline
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.utils import Secret


def build(api_key: Secret | None = None) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("llm", OpenAIChatGenerator(api_key or Secret.from_env_var("OPENAI_API_KEY")))
    return pipeline
