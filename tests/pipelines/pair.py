"""Two generators side by side."""

from haystack import Pipeline

from tests.fakes import AsyncFake


def build() -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("first", AsyncFake())
    pipeline.add_component("second", AsyncFake())
    return pipeline
