"""A model that never says a word."""

from haystack import Pipeline

from benchmarks.components.silent import Silent


def build() -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("llm", Silent())
    return pipeline
