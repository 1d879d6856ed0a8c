"""OpenAIChatGenerator on its async client, on a caller's key where there is one."""

from haystack import Pipeline
from haystack.utils import Secret

from benchmarks.components.openai import openai_generator


def build(api_key: Secret | None = None) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("llm", openai_generator(api_key))
    return pipeline
