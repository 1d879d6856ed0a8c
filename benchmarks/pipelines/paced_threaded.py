"""Stamped words at a steady rate, from a component that only knows threads."""

from haystack import Pipeline

from benchmarks.components.paced import Paced
from benchmarks.components.thread_bound import ThreadBound


def build() -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("llm", ThreadBound(Paced()))
    return pipeline
