"""OpenAIChatGenerator on its sync client, in a thread."""

from haystack import Pipeline

from benchmarks.components.openai import openai_generator
from benchmarks.components.thread_bound import ThreadBound


def build() -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("llm", ThreadBound(openai_generator()))
    return pipeline
