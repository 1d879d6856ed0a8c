"""Counts, on the event loop."""

from haystack import Pipeline

from benchmarks.soak.components.counted import Counted


def build() -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("llm", Counted())
    return pipeline
