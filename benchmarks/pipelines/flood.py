"""A model that could give more than anyone takes."""

from haystack import Pipeline

from benchmarks.components.flood import Flood


def build() -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("llm", Flood())
    return pipeline
