"""Counts, in a thread."""

from haystack import Pipeline

from benchmarks.components.thread_bound import ThreadBound
from benchmarks.soak.components.counted import Counted


def build() -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("llm", ThreadBound(Counted()))
    return pipeline
