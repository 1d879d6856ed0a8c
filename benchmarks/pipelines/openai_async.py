"""OpenAIChatGenerator on its async client."""

from haystack import Pipeline

from benchmarks.components.openai import openai_generator


def build() -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("llm", openai_generator())
    return pipeline
