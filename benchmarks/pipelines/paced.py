"""Stamped words at a steady rate, on the event loop."""

from haystack import Pipeline

from benchmarks.components.paced import Paced


def build() -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("llm", Paced())
    return pipeline
